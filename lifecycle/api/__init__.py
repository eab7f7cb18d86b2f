"""What every part of `/api/v1/` shares: callers, errors, pages, idempotency and the schema."""
