"""Checks a caller again before a stored response is replayed: what was allowed a day ago may not be allowed now.

Each POST route has one check, by the name of its URL. A route without a check is not replayed; a test lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.advisories.private import private_advisory_for
from lifecycle.alerts.access import alert_for, why_not_manage
from lifecycle.authority.access import access_request_for, group_for, image_for, repository_for, robot_in, team_for
from lifecycle.authority.rights import is_above_grants, require
from lifecycle.authority.services.groups import why_not_manage as why_not_manage_group
from lifecycle.clusters.access import cluster_for
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.core.reasons import refuse_if
from lifecycle.jobs.access import job_for
from lifecycle.notices.access import channel_for, message_for, notice_for
from lifecycle.notices.preferences import mute_for
from lifecycle.pentests.access import finding_for, run_for
from lifecycle.pentests.access import why_not as why_not_pentest
from lifecycle.policies.access import check_for, waiver_for
from lifecycle.promotion.access import promotion_for
from lifecycle.promotion.places import place_of, why_not_at
from lifecycle.promotion.release_queries import members_of, set_for
from lifecycle.quarantine.access import quarantine_for, why_not_quarantine
from lifecycle.rebuild.access import wave_for
from lifecycle.rebuild.refusals import why_not_steer
from lifecycle.remedies.access import share_for
from lifecycle.remedies.access import why_not_manage as why_not_manage_fix
from lifecycle.retention.access import plan_for, why_not_retain
from lifecycle.sealed_log.services import why_not_manage_anchors
from lifecycle.trust.access import source_for
from lifecycle.vex.access import decision_for, document_for, why_not
from lifecycle.vex.access import feed_for as vex_feed_for

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


def _release_set(user: User, set_id: Any, verb: Verb | None = None) -> None:
    for row in members_of(set_for(user, int(set_id))):
        if verb is not None:
            require(user, verb, repository=row.repository, environment=row.environment)


def _on_release_set(verb: Verb | None) -> Check:
    return lambda user, parameters, _: _release_set(user, parameters["pk"], verb)


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


def _on_group(user: User, parameters: Parameters, body: Body) -> None:
    refuse_if(why_not_manage_group(user, group_for(user, parameters.get("group_id") or int(body.get("id", 0)))))


def _at_place(user: User, _: Parameters, body: Body) -> None:
    """Check a window or a hold again: who could set it there now, sees it."""
    place = place_of(user, team=body.get("team") or "", environment=body.get("environment") or "")
    refuse_if(why_not_at(user, *place))


def _on_waiver(verb: Verb | None) -> Check:
    def check(user: User, parameters: Parameters, body: Body) -> None:
        waiver = waiver_for(user, int(parameters.get("pk", body.get("id", 0))))
        if verb is not None:
            require(user, verb, team=waiver.team, repository=waiver.repository, environment=waiver.environment)

    return check


def _on_cluster(user: User, parameters: Parameters, body: Body) -> None:
    cluster_for(user, str(parameters.get("slug") or body.get("slug") or ""), verb=Verb.ENVIRONMENT_MANAGE)


def _on_pentest(verb: Verb | None) -> Check:
    def check(user: User, parameters: Parameters, _: Body) -> None:
        row = finding_for(user, int(parameters["pk"]))
        if verb is not None:
            refuse_if(why_not_pentest(user, verb, row.repository))

    return check


def _on_alert(user: User, parameters: Parameters, _: Body) -> None:
    alert = alert_for(user, int(parameters["pk"]))
    refuse_if(why_not_manage(user, alert))


def _on_fix(user: User, parameters: Parameters, body: Body) -> None:
    refuse_if(why_not_manage_fix(user, share_for(user, str(parameters["key"]), str(body.get("team", "")))))


def _on_decision(verb: Verb | None) -> Check:
    def check(user: User, parameters: Parameters, body: Body) -> None:
        row = decision_for(user, int(parameters.get("pk", body.get("id", 0))))
        if verb is not None:
            refuse_if(why_not(user, verb, row.team, row.repository))

    return check


def _on_vex_document(verb: Verb | None) -> Check:
    def check(user: User, parameters: Parameters, body: Body) -> None:
        row = document_for(user, int(parameters.get("pk", body.get("id", 0))))
        if verb is not None:
            refuse_if(why_not(user, verb, row.team))

    return check


def _on_vex_feed(verb: Verb | None) -> Check:
    def check(user: User, parameters: Parameters, body: Body) -> None:
        row = vex_feed_for(user, int(parameters.get("pk", body.get("id", 0))))
        if verb is not None:
            refuse_if(why_not(user, verb, row.team))

    return check


def _on_retention(user: User, parameters: Parameters, body: Body) -> None:
    plan = plan_for(user, int(parameters.get("pk", body.get("id", 0))))
    refuse_if(why_not_retain(user, plan.team, plan.repository))


def _on_quarantine(user: User, parameters: Parameters, body: Body) -> None:
    row = quarantine_for(user, int(parameters.get("pk", body.get("id", 0))))
    refuse_if(why_not_quarantine(user, row.image))


def _exempts(user: User, _: Parameters, body: Body) -> None:
    refuse_if(why_not_quarantine(user, image_for(user, str(body.get("digest", "")))))


def _on_access_request(user: User, parameters: Parameters, _: Body) -> None:
    row = access_request_for(user, int(parameters["pk"]))
    require(user, Verb.TEAM_MANAGE, team=row.team)


def _on_access_file(user: User, parameters: Parameters, body: Body) -> None:
    for change in [*body.get("done", ()), *body.get("kept", ())]:
        if change["team"]:
            require(user, Verb.TEAM_MANAGE, team=team_for(user, change["team"]))
        else:
            _admin(user, parameters, body)


def _computed(_: User, __: Parameters, ___: Body) -> None:
    """Refuse: the answer was computed from the facts of then, and changed nothing."""
    raise NotFound("This answer is not kept, because nothing was changed. Send the request with a new key.")


def _admin(user: User, _: Parameters, __: Body) -> None:
    if not is_above_grants(user):
        raise NotPermitted("Only admins can do this. Ask an admin.")


CHECKS: Final[Mapping[str, Check]] = {
    "cluster-list": _on_cluster,
    "auditanchor-list": lambda user, *_: refuse_if(why_not_manage_anchors(user)),
    "cluster-explain": _computed,
    "cluster-forecast": _computed,
    "cluster-debt-review": _on_cluster,
    "cluster-reports": lambda user, parameters, _: cluster_for(user, parameters["slug"], verb=Verb.RUNTIME_REPORT),
    "isolation-check": _computed,
    "pentestrun-list": lambda user, _, body: run_for(user, int(body.get("id", 0))),
    "pentestfinding-confirm": _on_pentest(Verb.RUNTIME_MANAGE),
    "pentestfinding-retest": _on_pentest(Verb.IMAGE_SCAN),
    "pentestfinding-dismiss": _on_pentest(Verb.WAIVER_APPROVE),
    "pentestfinding-accept": _on_pentest(None),  # who asks and who accepts have different verbs
    "cluster-secrets": _on_cluster,
    "promotion-list": lambda user, _, body: _promotion(user, body.get("id", 0), Verb.PROMOTION_REQUEST),
    "promotion-rollback": lambda user, _, body: _promotion(user, body.get("id", 0)),
    "promotion-break-glass": lambda user, _, body: _promotion(user, body.get("id", 0), Verb.PROMOTION_BREAKGLASS),
    "promotion-comment": _on_promotion(None),  # who sees a request can comment
    "promotion-resolve-thread": _on_promotion(None),  # the author of a thread resolves it without a verb
    "promotion-verify": _on_promotion(Verb.PROMOTION_EXECUTE),
    "promotion-review": _on_promotion(Verb.PROMOTION_APPROVE),
    "promotion-approve": _on_promotion(Verb.PROMOTION_APPROVE),
    "promotion-reject": _on_promotion(Verb.PROMOTION_APPROVE),
    "promotion-object": _on_promotion(Verb.PROMOTION_APPROVE),
    "promotion-withdraw-vote": _on_promotion(None),  # a voter can take back a vote after losing the verb
    "promotion-overrule": _on_promotion(Verb.ENVIRONMENT_MANAGE),
    "promotion-execute": _on_promotion(Verb.PROMOTION_EXECUTE),
    "promotion-withdraw": _on_promotion(None),  # the requester can withdraw without a verb
    "releaseset-list": lambda user, _, body: _release_set(user, body.get("id", 0), Verb.PROMOTION_REQUEST),
    "releaseset-approve": _on_release_set(Verb.PROMOTION_APPROVE),
    "releaseset-reject": _on_release_set(Verb.PROMOTION_APPROVE),
    "releaseset-object": _on_release_set(Verb.PROMOTION_APPROVE),
    "releaseset-withdraw-vote": _on_release_set(None),  # as of a request
    "releaseset-overrule": _on_release_set(Verb.ENVIRONMENT_MANAGE),
    "releaseset-execute": _on_release_set(Verb.PROMOTION_EXECUTE),
    "releaseset-withdraw": _on_release_set(None),  # as of a request
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
    "team-move-repositories": _in_team(Verb.TEAM_MANAGE),
    "groups": _on_group,
    "sign-in-providers": _admin,
    "sign-in-provider-test": _admin,
    "sign-in-preview": _admin,
    "sign-in-effects": _admin,
    "sign-in-rules": _admin,
    "group-members": _on_group,
    "team-robots": _in_team(Verb.ROBOT_MANAGE),
    "robot-take-over": _on_robot,
    "robot-tokens": _on_robot,
    "robot-trust-rules": _on_robot,
    "robot-trust-rule-try": _computed,
    "team-environments": _in_team(Verb.ENVIRONMENT_MANAGE),
    "window-list": _at_place,
    "hold-list": _at_place,
    "image-signatures": lambda user, parameters, _: image_for(user, parameters["digest"], Verb.IMAGE_SCAN),
    "image-sboms": lambda user, parameters, _: image_for(user, parameters["digest"], Verb.IMAGE_SCAN),
    "image-sbom-withdraw": lambda user, parameters, _: image_for(user, parameters["digest"], Verb.IMAGE_SCAN),
    "scan": _computed,
    "trusted-sources": lambda user, _, body: source_for(user, int(body.get("id", 0))),
    "signingkey-list": _admin,
    "signingkey-retire": _admin,
    "channel-list": lambda user, _, body: channel_for(user, int(body.get("id", 0))),
    "externalcheck-list": lambda user, _, body: check_for(user, int(body.get("id", 0))),
    "channel-test": lambda user, parameters, _: channel_for(user, int(parameters["pk"])),
    "message-redeliver": lambda user, parameters, _: message_for(user, int(parameters["pk"])),
    "notice-test-mail": lambda user, _, __: user,  # to the caller
    "noticemute-list": lambda user, _, body: mute_for(user, int(body.get("id", 0))),
    "notice-read": lambda user, parameters, _: notice_for(user, int(parameters["pk"])),
    "notice-read-all": lambda user, _, __: user,  # the caller's own; only a number is stored
    "policy-test": _computed,
    "policy-try": _computed,
    "due-dates-what-if": _computed,
    "alert-acknowledge": _on_alert,
    "alert-snooze": _on_alert,
    "alert-resolve": _on_alert,
    "privateadvisory-list": lambda user, _, body: private_advisory_for(user, int(body.get("id", 0))),
    "privateadvisory-approve": _admin,
    "privateadvisory-reject": _admin,
    "privateadvisory-cancel": lambda user, parameters, _: private_advisory_for(user, int(parameters["pk"])),
    "fix-assign": _on_fix,
    "fix-snooze": _on_fix,
    "fix-wake": _on_fix,
    "fix-comment": lambda user, parameters, body: share_for(user, str(parameters["key"]), str(body.get("team", ""))),
    "policy-what-if": _computed,
    "retentionplan-list": _on_retention,
    "retentionplan-confirm": _on_retention,
    "retentionplan-restore": _on_retention,
    "quarantine-list": _on_quarantine,
    "quarantine-request-release": _on_quarantine,
    "quarantine-release": _on_quarantine,
    "quarantine-refuse-release": _on_quarantine,
    "quarantine-withdraw": _on_quarantine,
    "quarantine-exemptions": _exempts,
    "vexstatement-list": _on_decision(Verb.WAIVER_REQUEST),
    "vexstatement-approve": _on_decision(Verb.WAIVER_APPROVE),
    "vexstatement-reject": _on_decision(Verb.WAIVER_APPROVE),
    "vexstatement-withdraw": _on_decision(None),  # the author can withdraw without a verb
    "vexfeed-list": _on_vex_feed(Verb.WAIVER_REQUEST),
    "vexfeed-sync": _on_vex_feed(Verb.WAIVER_REQUEST),
    "vexfeed-trust": _on_vex_feed(Verb.WAIVER_APPROVE),
    "vexfeed-distrust": _on_vex_feed(None),  # who added it can end its trust without a verb
    "vexdocument-list": _on_vex_document(Verb.WAIVER_REQUEST),
    "vexdocument-accept": _on_vex_document(Verb.WAIVER_APPROVE),
    "vexdocument-withdraw": _on_vex_document(None),
    "waiver-list": _on_waiver(Verb.WAIVER_REQUEST),
    "waiver-approve": _on_waiver(Verb.WAIVER_APPROVE),
    "waiver-reject": _on_waiver(Verb.WAIVER_APPROVE),
    "waiver-revoke": _on_waiver(None),  # the requester can revoke without a verb
    "people": _admin,
    "person-password": _admin,
    "person-deactivate": _admin,
    "person-reactivate": _admin,
    "person-mail": _admin,
    "feed-list": _admin,
    "feed-sync": _admin,
    "registry-list": _admin,
    "registry-test": _computed,
    "roles": _admin,
    "role-what-if": _computed,
    "access-file-diff": _computed,
    "access-file-apply": _on_access_file,
    "accessrequest-list": lambda user, _, body: access_request_for(user, int(body.get("id", 0))),
    "accessrequest-grant": _on_access_request,
    "accessrequest-decline": _on_access_request,
    "accessrequest-withdraw": lambda user, parameters, _: access_request_for(user, int(parameters["pk"])),
    "tokens": lambda user, _, __: user,  # the caller's own; its text is not stored
}
