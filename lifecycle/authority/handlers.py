"""Event subscribers and scheduled tasks of this package."""

from __future__ import annotations

from lifecycle import events
from lifecycle.authority import changes, limiter, projection, sessions
from lifecycle.events import subscribe
from lifecycle.jobs.schedule import every


@subscribe(events.RepositoriesCreated)
def project_new_repositories(event: events.RepositoriesCreated) -> None:
    """Add guardian rows for new repositories that existing grants cover."""
    projection.project_new_repositories(event.repository_ids)


@every(projection.EXPIRY_EVERY_S, "project-expired-grants")
def project_expired() -> None:
    """Remove the guardian rows of expired grants."""
    projection.project_expired()


@every(3600, "forget-credential-failures")
def forget_credential_failures() -> None:
    """Delete rejected credentials that are too old for the limits."""
    limiter.forget_old()


@every(3600, "forget-permission-changes")
def forget_permission_changes() -> None:
    """Delete changes of rights that every process has seen."""
    changes.forget_old()


@every(3600, "forget-ended-sessions")
def forget_ended_sessions() -> None:
    """Delete browser sessions that have expired."""
    sessions.SessionStore.clear_expired()
