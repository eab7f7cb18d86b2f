"""Who is told about promotions: those who can act, and the requester. Subscribed to the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from django.urls import reverse

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.authority.queries import people_who
from lifecycle.events import AuditRecorded
from lifecycle.notices.telling import because, by, key_of, name_of, person_behind, settle, tell
from lifecycle.notices.topics import Topic, register
from lifecycle.notices.types import Telling
from lifecycle.promotion.exclusions import excluded_from
from lifecycle.promotion.models import PromotionRequest, ReleaseSet, Vote

ASKED: Final = register(Topic("promotion.asked", "Approval asked", "A promotion was requested that you can approve."))
REMINDED: Final = register(
    Topic("promotion.reminded", "Reminder", "A request that you can approve or run is about to expire.")
)
DECIDED: Final = register(
    Topic(
        "promotion.decided",
        "Decided",
        "A request of yours, or one that you can run, is ready, was rejected, or met an objection.",
    )
)
REGRESSED: Final = register(
    Topic("promotion.regressed", "Regressed", "A ready request of yours stopped meeting its requirements,"
          " or your approval lapsed.")
)  # fmt: skip
EXPIRED: Final = register(
    Topic("promotion.expired", "Expired or replaced", "A request of yours ran out of time, or a newer one replaces it.")
)
EXECUTED: Final = register(
    Topic(
        "promotion.executed", "Executed", "A request of yours, or one that you approved, was promoted.", is_mailed=False
    )
)
BREAK_GLASS: Final = register(
    Topic(
        "promotion.break_glass",
        "Break-glass",
        "Somebody promoted without approval, and you can review it; or your use of break-glass was reviewed.",
    )
)
TO_VERIFY: Final = register(
    Topic("promotion.to_verify", "Verification asked", "A promoted image waits until you say whether it works.")
)
DISCUSSED: Final = register(
    Topic("promotion.discussed", "Discussed", "A comment on a request of yours, or on one that you take part in.")
)
FAILED: Final = register(Topic("promotion.failed", "Failed", "A promotion failed that you requested or can run."))


def tell_about(event: AuditRecorded) -> None:
    """Tell people about an event of the audit log, if it is one about a promotion that somebody wants to know."""
    teller = _TELLERS.get(event.action)
    if teller is None or event.subject_kind != "promotionrequest" or event.subject_id is None:
        return
    rows = PromotionRequest.objects.select_related(
        "image", "repository__team", "environment__team", "requested_by", "executed_by", "superseded_by"
    )
    request = rows.filter(pk=event.subject_id).first()
    if request is None:
        return
    # What happens to a member of a set is told once, about the set: see `release_telling`.
    if request.release_set_id is None or event.action in _ALSO_IN_SETS:
        teller(request, event)


def thread_of(request: PromotionRequest) -> str:
    """Return the thread of all notices about a request."""
    return f"promotionrequest-{request.pk}"


def _tell(
    topic: Topic,
    request: PromotionRequest,
    key: str,
    *,
    text: str,
    people: Iterable[int],
    actor: User | None = None,
) -> None:
    ids = set(people) - ({actor.pk} if actor is not None else set())
    what = Telling(
        topic,
        key=key,
        thread=thread_of(request),
        subject=f"{request}: {request.repository.name}:{request.tag} to {request.environment.slug}",
        text=text,
        link=reverse("lifecycle:promotion", args=[request.pk]),
        repository=request.repository,
        environment=request.environment,
        actor=name_of(actor),
        facts={
            "promotion": str(request.pk),
            "state": request.state,
            "digest": request.image.digest,
            "tag": request.tag,
            "requested_by": request.requested_by.username,
        },
    )
    tell(what, ids)


def who_can_approve(request: PromotionRequest) -> set[int]:
    """Return who can approve the request: has the right, and is not excluded."""
    return who(request, Verb.PROMOTION_APPROVE) - set(excluded_from(request))


def who(request: PromotionRequest, verb: Verb) -> set[int]:
    """Return who has the verb for the request."""
    environment, family = request.environment, request.repository.family
    people = people_who(verb, team=environment.team, family=family, environment=environment)
    return set(people.values_list("pk", flat=True))


def requester_of(request: PromotionRequest | ReleaseSet) -> set[int]:
    """Return the requester; for a robot, the user who is responsible for it."""
    return person_behind(request.requested_by)


def _voters(request: PromotionRequest, **which: object) -> set[int]:
    return set(request.votes.filter(**which).values_list("voter", flat=True))


def needs_approval(request: PromotionRequest) -> bool:
    """Return whether anybody has to approve requests to this environment."""
    return bool(request.environment.required_approvals) or request.environment.approval_rules.exists()


def _asked(request: PromotionRequest, event: AuditRecorded) -> None:
    if not needs_approval(request):
        return
    text = f"{request.requested_by} asks for approval. Reason: {request.reason}"
    _tell(ASKED, request, key_of(event), text=text, people=who_can_approve(request), actor=by(event))


def _ready(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (ASKED, REMINDED))
    text = f"All requirements are met. It expires{at(request.execute_by)} unless somebody runs it."
    people = requester_of(request) | who(request, Verb.PROMOTION_EXECUTE)
    _tell(DECIDED, request, key_of(event), text=text, people=people)


def _rejected(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (ASKED, REMINDED, DECIDED))
    actor = by(event)
    text = f"{actor} rejected it.{because(event)}"
    people = requester_of(request) | _voters(request, value=Vote.Value.APPROVE)
    _tell(DECIDED, request, key_of(event), text=text, people=people, actor=actor)


def _withdrawn(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (ASKED, REMINDED, DECIDED))


def _objected(request: PromotionRequest, event: AuditRecorded) -> None:
    actor = by(event)
    text = f"{actor} objected; it waits until the objection is withdrawn or overruled.{because(event)}"
    people = requester_of(request) | _voters(request, value=Vote.Value.APPROVE)
    _tell(DECIDED, request, key_of(event), text=text, people=people, actor=actor)


def _reminded(request: PromotionRequest, event: AuditRecorded) -> None:
    if request.state == PromotionRequest.State.READY:
        text = f"It is ready, and expires{at(request.execute_by)} unless somebody runs it."
        people = requester_of(request) | who(request, Verb.PROMOTION_EXECUTE)
    else:
        text = f"It still waits for approval, and expires{at(request.approve_by)}."
        people = who_can_approve(request) - _voters(request, lapsed_at=None)
    _tell(REMINDED, request, key_of(event), text=text, people=people)


def _superseding(request: PromotionRequest, event: AuditRecorded) -> None:
    text = f"{request.superseded_by} is newer and will replace it{at(request.supersede_at)}."
    _tell(EXPIRED, request, key_of(event), text=text, people=requester_of(request))


def _superseded(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (ASKED, REMINDED, DECIDED))
    text = f"{request.superseded_by} is newer and replaced it."
    _tell(EXPIRED, request, key_of(event), text=text, people=requester_of(request))


def _regressed(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (DECIDED,))
    text = f"It no longer meets all requirements.{because(event, '')}"
    people = requester_of(request) | _voters(request, value=Vote.Value.APPROVE)
    _tell(REGRESSED, request, key_of(event), text=text, people=people)


def _lapsed(request: PromotionRequest, event: AuditRecorded) -> None:
    people = _voters(request, value=Vote.Value.APPROVE, lapsed_at__isnull=False)
    text = f"Your approval does not count any more.{because(event, '')}"
    _tell(REGRESSED, request, key_of(event), text=text, people=people)


def _expired(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (ASKED, REMINDED, DECIDED))
    what = "approved" if event.reason == "approve_by" else "run"
    text = f"It was not {what} in time. Request it again if it is still needed."
    _tell(EXPIRED, request, key_of(event), text=text, people=requester_of(request))


def _executing(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (REMINDED, DECIDED))


def _executed(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (DECIDED, TO_VERIFY))
    text = f"{request.environment.slug} now has {request.repository.name}:{request.tag}."
    people = requester_of(request) | _voters(request, value=Vote.Value.APPROVE)
    _tell(EXECUTED, request, key_of(event), text=text, people=people, actor=by(event))


def _failed(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (TO_VERIFY,))
    runner = {request.executed_by_id} if request.executed_by_id is not None else set()
    people = requester_of(request) | runner | who(request, Verb.PROMOTION_EXECUTE)
    text = f"It failed; the environment keeps its image.{because(event, '')}"
    _tell(FAILED, request, key_of(event), text=text, people=people)


def _failed_once(request: PromotionRequest, event: AuditRecorded) -> None:
    runner = {request.executed_by_id} if request.executed_by_id is not None else set()
    text = f"It failed for a technical reason, and can be run again.{because(event, '')}"
    _tell(FAILED, request, key_of(event), text=text, people=requester_of(request) | runner)


def _broke_glass(request: PromotionRequest, event: AuditRecorded) -> None:
    actor = by(event)
    text = f"{actor} promoted it without approval. Review it.{because(event)}"
    _tell(BREAK_GLASS, request, key_of(event), text=text, people=who(request, Verb.PROMOTION_APPROVE), actor=actor)


def _review_overdue(request: PromotionRequest, event: AuditRecorded) -> None:
    text = "Nobody has reviewed this use of break-glass in time. Until then it stays on the board."
    people = who(request, Verb.PROMOTION_APPROVE) - requester_of(request)
    _tell(BREAK_GLASS, request, key_of(event), text=text, people=people)


def _reviewed(request: PromotionRequest, event: AuditRecorded) -> None:
    settle(thread_of(request), (BREAK_GLASS,))
    actor = by(event)
    text = f"{actor} reviewed your use of break-glass.{because(event)}"
    _tell(BREAK_GLASS, request, key_of(event), text=text, people=requester_of(request), actor=actor)


def _to_verify(request: PromotionRequest, event: AuditRecorded) -> None:
    text = f"{request.environment.slug} has the new image. Say whether it works."
    people = requester_of(request) | who(request, Verb.PROMOTION_EXECUTE)
    _tell(TO_VERIFY, request, key_of(event), text=text, people=people)


def _commented(request: PromotionRequest, event: AuditRecorded) -> None:
    actor = by(event)
    writers = set(request.comments.values_list("author", flat=True))
    people = requester_of(request) | _voters(request) | writers
    _tell(DISCUSSED, request, key_of(event), text=f"{actor} commented on it.", people=people, actor=actor)


def at(moment: datetime | None) -> str:
    """Return a time as the end of a sentence, or ""."""
    return f" at {moment:%Y-%m-%d %H:%M} UTC" if moment is not None else ""


_TELLERS: Final[Mapping[str, Callable[[PromotionRequest, AuditRecorded], None]]] = {
    Action.PROMOTION_REQUESTED.value: _asked,
    Action.PROMOTION_READY.value: _ready,
    Action.PROMOTION_REJECTED.value: _rejected,
    Action.PROMOTION_WITHDRAWN.value: _withdrawn,
    Action.PROMOTION_OBJECTED.value: _objected,
    Action.PROMOTION_REMINDED.value: _reminded,
    Action.PROMOTION_SUPERSEDING.value: _superseding,
    Action.PROMOTION_SUPERSEDED.value: _superseded,
    Action.PROMOTION_REGRESSED.value: _regressed,
    Action.PROMOTION_VOTE_LAPSED.value: _lapsed,
    Action.PROMOTION_EXPIRED.value: _expired,
    Action.PROMOTION_EXECUTING.value: _executing,
    Action.PROMOTION_SUCCEEDED.value: _executed,
    Action.PROMOTION_FAILED.value: _failed,
    Action.PROMOTION_BREAK_GLASS.value: _broke_glass,
    Action.PROMOTION_REVIEW_OVERDUE.value: _review_overdue,
    Action.PROMOTION_REVIEWED.value: _reviewed,
    Action.PROMOTION_TO_VERIFY.value: _to_verify,
    Action.PROMOTION_COMMENTED.value: _commented,
    Action.PROMOTION_ATTEMPT_FAILED.value: _failed_once,
}
_ALSO_IN_SETS: Final = frozenset({Action.PROMOTION_COMMENTED.value, Action.PROMOTION_VOTE_LAPSED.value})
