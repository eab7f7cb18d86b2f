"""The robot with which the agent of a cluster or host reports, and its tokens."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from accounts.models import Robot, User
from accounts.verbs import Verb
from lifecycle.authority.grants import live_grants
from lifecycle.authority.rights import may
from lifecycle.authority.services.robots import create_robot, create_robot_token, grant_robot
from lifecycle.clusters.access import cluster_for
from lifecycle.clusters.models import Cluster
from lifecycle.core.reasons import Reason, refuse_if

ROLE: Final = "agent"
NAME: Final = "agent"  # of the token
DAYS: Final = 365  # an agent is set up by hand


def why_not_create_agent(actor: User, cluster: Cluster) -> Reason | None:
    """Return why `actor` cannot make a token for the agent of a cluster."""
    for verb in (Verb.ROBOT_MANAGE, Verb.RUNTIME_REPORT):
        if not (decision := may(actor, verb, team=cluster.team)):
            return Reason(decision.reason)
    return None


@transaction.atomic
def create_agent_token(slug: str, *, actor: User) -> str:
    """Make a token for the agent of a cluster; return its text, which cannot be read again.

    It is one of the robot `<team>+agent-<cluster>`, which is made with the role `agent` when it is not there. Raises
    NotFound, NotPermitted, Malformed, or Conflict for a robot that was deactivated.
    """
    cluster = cluster_for(actor, slug, locked=True)
    refuse_if(why_not_create_agent(actor, cluster))
    name = f"agent-{cluster.slug}"[:60].rstrip("-")
    robot = Robot.objects.filter(team=cluster.team, name=name).first()
    if robot is None:
        robot = create_robot(cluster.team_id, actor=actor, name=name)
    if not live_grants(robot.user).filter(role__slug=ROLE, team=cluster.team, repository_pattern="*").exists():
        grant_robot(robot.pk, actor=actor, role=ROLE)
    return create_robot_token(robot.pk, actor=actor, name=NAME, days=DAYS)[1]
