"""From a push to rows: notifications and crawls, read from the registry, written in one transaction."""
