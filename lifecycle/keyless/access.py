"""From an id in a request to a trust rule."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.models import Robot
from lifecycle.core.errors import NotFound
from lifecycle.keyless.models import TrustRule


def rules_of(robot: Robot) -> QuerySet[TrustRule]:
    """Return the live rules of a robot; page by id. The caller has checked that the reader can see its team."""
    return TrustRule.objects.filter(robot=robot, ended_at=None).select_related("made_by")


def rule_of(robot: Robot, rule_id: int) -> TrustRule:
    """Return one live rule of a robot; raises NotFound."""
    rule = rules_of(robot).filter(pk=rule_id).select_related("made_by", "robot__user", "robot__team").first()
    if rule is None:
        raise NotFound("Rule not found, or you don't have access.")
    return rule
