"""Queries of a team's promotion path."""

from __future__ import annotations

from lifecycle.environments.models import Environment


def previous_environment(environment: Environment) -> Environment | None:
    """Return the environment before this one on its team's path, without archived ones, or None for the first."""
    return (
        Environment.objects.filter(team_id=environment.team_id, position__lt=environment.position, archived_at=None)
        .order_by("-position")
        .first()
    )
