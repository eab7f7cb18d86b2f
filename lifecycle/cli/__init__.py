"""The `gravingdock` command: it speaks to `/api/v1/` and imports nothing else of ours."""
