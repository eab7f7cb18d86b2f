"""Checks a caller again before a stored response is replayed: what was allowed a day ago may not be allowed now.

Each POST route has one check, by the name of its URL. A route without a check is not replayed; a test lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.access import repository_for, robot_in, team_for
from lifecycle.authority.rights import require
from lifecycle.authority.services.teams import is_above_grants
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.core.reasons import refuse_if
from lifecycle.jobs.access import job_for
from lifecycle.promotion.access import promotion_for
from lifecycle.rebuild.access import wave_for
from lifecycle.rebuild.refusals import why_not_steer

Parameters = Mapping[str, Any]
Body = Mapping[str, Any]
# The caller, the parameters of the URL, and the stored body. Raises NotFound or NotPermitted.
Check = Callable[[User, Parameters, Body], object]


def check_again(name: str, user: User, parameters: Parameters, body: Any) -> None:
    """Raise NotFound or NotPermitted unless `user` may still do what the stored response of the route says was done."""
    check = CHECKS.get(name)
    if check is None:
        raise NotFound("The stored response cannot be returned. Send the request with a new key.")
    check(user, parameters, body if isinstance(body, Mapping) else {})


def _promotion(user: User, promotion_id: Any, verb: Verb | None = None) -> None:
    request = promotion_for(user, int(promotion_id))
    if verb is not None:
        require(user, verb, repository=request.repository, environment=request.environment)


def _on_promotion(verb: Verb | None) -> Check:
    return lambda user, parameters, _: _promotion(user, parameters["pk"], verb)


def _steers(user: User, parameters: Parameters, _: Body) -> None:
    refuse_if(why_not_steer(user, wave_for(user, int(parameters["pk"]))), verb=Verb.IMAGE_REBUILD.value)


def _in_team(verb: Verb) -> Check:
    return lambda user, parameters, _: require(user, verb, team=team_for(user, parameters["team"]))


def _grants(user: User, parameters: Parameters, body: Body) -> None:
    verb = Verb.ROBOT_MANAGE if body.get("kind") == User.Kind.ROBOT else Verb.TEAM_MANAGE
    require(user, verb, team=team_for(user, parameters["team"]))


def _on_robot(user: User, parameters: Parameters, _: Body) -> None:
    team = team_for(user, parameters["team"])
    robot_in(team, parameters["robot_id"])
    require(user, Verb.ROBOT_MANAGE, team=team)


def _admin(user: User, _: Parameters, __: Body) -> None:
    if not is_above_grants(user):
        raise NotPermitted("Only admins can do this. Ask an admin.")


CHECKS: Final[Mapping[str, Check]] = {
    "promotion-list": lambda user, _, body: _promotion(user, body.get("id", 0), Verb.PROMOTION_REQUEST),
    "promotion-approve": _on_promotion(Verb.PROMOTION_APPROVE),
    "promotion-reject": _on_promotion(Verb.PROMOTION_APPROVE),
    "promotion-execute": _on_promotion(Verb.PROMOTION_EXECUTE),
    "promotion-withdraw": _on_promotion(None),  # the requester can withdraw without a verb
    "rebuildwave-list": lambda user, _, body: wave_for(user, int(body.get("id", 0))),
    "rebuildwave-confirm": _steers,
    "rebuildwave-cancel": _steers,
    "rebuildwave-retry": _steers,
    "repository-watches": lambda user, parameters, _: repository_for(
        user, parameters["repository_id"], Verb.IMAGE_REBUILD
    ),
    "job-cancel": lambda user, parameters, _: job_for(user, int(parameters["pk"])),
    "job-retry": lambda user, _, body: job_for(user, int(body.get("id", 0))),
    "teams": _admin,
    "team-grants": _grants,
    "team-robots": _in_team(Verb.ROBOT_MANAGE),
    "robot-take-over": _on_robot,
    "robot-tokens": _on_robot,
    "team-environments": _in_team(Verb.ENVIRONMENT_MANAGE),
    "roles": _admin,
    "tokens": lambda user, _, __: user,  # the caller's own; its text is not stored
}
