"""Work as rows in PostgreSQL: queue, claim, lease, sweep, schedule. Celery only carries wake-ups."""
