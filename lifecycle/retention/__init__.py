"""Which images repositories keep: rules, plans with all reasons, and deletions that can be undone for a while."""
