"""How a push becomes rows: notifications and crawls, read from the registry and written in one transaction."""
