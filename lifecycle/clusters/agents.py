"""The robot with which the agent of a cluster or host reports, and its tokens."""

from __future__ import annotations

from itertools import count
from typing import Final

from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Robot, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_clusters import ClusterAgentBound
from lifecycle.authority.grants import live_grants
from lifecycle.authority.rights import may
from lifecycle.authority.services.robots import create_robot, create_robot_token, grant_robot
from lifecycle.clusters.access import cluster_for
from lifecycle.clusters.models import Cluster, ClusterAgent
from lifecycle.core.reasons import Reason, refuse_if

ROLE: Final = "agent"
NAME: Final = "agent"  # of the token
_NAME_MAX: Final = 60  # characters
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

    It is one of the robot `<team>+agent-<cluster>`, which speaks for this cluster only and has the role `agent` only. A
    robot of that name that is anything else, or more, is left alone: the next free name is taken. Raises NotFound,
    NotPermitted, or Malformed.
    """
    cluster = cluster_for(actor, slug, locked=True)
    refuse_if(why_not_create_agent(actor, cluster))
    robot = next(filter(_is_only_agent, _robots_of(cluster)), None)
    if robot is None:
        robot = create_robot(cluster.team_id, actor=actor, name=_free_name(cluster))
        ClusterAgent.objects.create(user=robot.user, cluster=cluster)
        details = ClusterAgentBound(slug=cluster.slug, user=robot.user.username)
        audit.record(Action.CLUSTER_AGENT_BOUND, actor=actor, subject=cluster, team=cluster.team, details=details)
        grant_robot(robot.pk, actor=actor, role=ROLE)
    return create_robot_token(robot.pk, actor=actor, name=NAME, days=DAYS)[1]


def _robots_of(cluster: Cluster) -> QuerySet[Robot]:
    bound = ClusterAgent.objects.filter(cluster=cluster).values("user")
    return Robot.objects.filter(team=cluster.team, user__in=bound, user__is_active=True).order_by("-pk")


def _is_only_agent(robot: Robot) -> bool:
    """Return whether a robot has the role of agents in its team, and nothing else, also not through a group."""
    grants = list(live_grants(robot.user).select_related("role"))
    return not robot.is_suspended and [
        (grant.role.slug, grant.team_id, grant.repository_pattern, grant.environment_id) for grant in grants
    ] == [(ROLE, robot.team_id, "*", None)]


def _free_name(cluster: Cluster) -> str:
    taken = set(Robot.objects.filter(team=cluster.team, name__startswith="agent-").values_list("name", flat=True))
    for number in count(1):
        ending = f"-{number}" if number > 1 else ""
        name = f"agent-{cluster.slug}"[: _NAME_MAX - len(ending)].rstrip("-") + ending
        if name not in taken:
            break
    return name
