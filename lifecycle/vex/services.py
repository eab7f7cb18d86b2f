"""Decisions about findings. Each function checks, locks, changes and audits in one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import transaction

from accounts.models import Team, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import VexDetails
from lifecycle.authority.identity import why_not_second, why_token_not_counted
from lifecycle.core import clock, locks
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.states import move_row
from lifecycle.core.types import Digest
from lifecycle.registry.models import Image, Repository, RepositoryImage
from lifecycle.vex import values
from lifecycle.vex.access import decision_for, why_not
from lifecycle.vex.constants import SUPPRESSING, TEXT_MAX
from lifecycle.vex.effects import home_of
from lifecycle.vex.models import VexStatement

State = VexStatement.State
Scope = VexStatement.Scope
_LOCK: Final = 0x76657864  # one decision at a time, so that each replaces the one before
_BATCH: Final = 200  # statements of one scheduled run


@transaction.atomic
def decide(
    vulnerability: str,
    status: str,
    *,
    actor: User,
    scope: str,
    reason: str,
    justification: str = "",
    team: Team | None = None,
    repository: Repository | None = None,
    digest: str = "",
    package: str = "",
    until: datetime | None = None,
) -> VexStatement:
    """Say what a vulnerability means for some images. It replaces an earlier decision about the same.

    Where VEX_SECOND_PERSON is set, one that suppresses findings has no effect until a second person approves it.
    Raises NotPermitted, Malformed for a wrong or missing value, and Conflict while the same waits for approval.
    """
    team = repository.team if repository is not None else team
    refuse_if(_why_not_scope(scope, team, repository, digest))
    if scope == Scope.ALL:
        team = None
    refuse_if(why_not(actor, Verb.WAIVER_REQUEST, team, repository))
    if digest:
        digest = Digest.parse(digest).text
        refuse_if(_why_not_home(repository, digest))
    names = values.vulnerability_names([vulnerability])
    refuse_if(_why_not_said(status, justification, reason, until))
    package = values.purl(package) if package else ""
    locks.wait_for(_LOCK)
    same = {"scope": scope, "team": team, "repository": repository, "digest": digest, "package": package,
            "names__0": names[0], "document": None}  # fmt: skip
    if other := VexStatement.objects.filter(state=State.REQUESTED, **same).first():
        raise Conflict(f"{other} about the same waits for approval. Withdraw it first.")
    needs_second = status in SUPPRESSING and settings.VEX_SECOND_PERSON
    row = VexStatement.objects.create(
        names=list(names), status=status, justification=justification, reason=reason.strip(), said_at=clock.now(),
        scope=scope, team=team, repository=repository, digest=digest, package=package, until=until, author=actor,
        state=State.REQUESTED if needs_second else State.LIVE,
    )  # fmt: skip
    if needs_second:
        _record(Action.VEX_REQUESTED, row, actor, reason=row.reason)
    else:
        _record(Action.VEX_DECIDED, row, actor, reason=row.reason)
        _take_effect(row, actor)
    return row


def _why_not_scope(scope: str, team: Team | None, repository: Repository | None, digest: str) -> Reason | None:
    problem = ""
    is_near = scope in {Scope.DIGEST, Scope.REPOSITORY}
    if scope not in Scope.values:
        problem = f"scope: choose one of {', '.join(Scope.values)}."
    elif is_near and repository is None:
        problem = f"Name a repository for the scope {scope}."
    elif repository is not None and not is_near:
        problem = f"Leave the repository out for the scope {scope}."
    elif repository is not None and repository.source_id is not None:
        problem = "Name the source repository. What is decided there counts in its environments too."
    elif scope == Scope.TEAM and team is None:
        problem = "Name a team for the scope team."
    elif (scope == Scope.DIGEST) != bool(digest):
        problem = "Name a digest for the scope digest, and only for it."
    return Reason(problem, Malformed) if problem else None


def _why_not_home(repository: Repository | None, digest: str) -> Reason | None:
    image = Image.objects.filter(digest=digest).first()
    held = RepositoryImage.objects.filter(repository=repository, image=image, removed_at=None)
    if image is None or repository is None or not held.exists():
        return Reason("The repository has no image with this digest.", Malformed)
    if home_of(image) != repository.pk:
        return Reason(
            "This image is a copy: another repository had it first, and its owner decides about it."
            " Ask them, or request a waiver.",
            Malformed,
        )
    return None


def _why_not_said(status: str, justification: str, reason: str, until: datetime | None) -> Reason | None:
    is_not_affected = status == VexStatement.Status.NOT_AFFECTED
    problem = ""
    if status not in VexStatement.Status.values:
        problem = f"status: choose one of {', '.join(VexStatement.Status.values)}."
    elif not reason.strip() or len(reason) > TEXT_MAX:
        problem = f"Enter a reason of at most {TEXT_MAX} characters."
    elif is_not_affected and not justification:
        problem = "Choose a justification: why the image is not affected."
    elif justification and not is_not_affected:
        problem = "Only not_affected has a justification."
    elif until is not None and until <= clock.now():
        problem = "The end must be in the future."
    else:
        values.check_reasoned(status, justification, reason)
    return Reason(problem, Malformed) if problem else None


def why_not_approve(actor: User, row: VexStatement) -> Reason | None:
    """Return why `actor` cannot approve or reject a decision. Nobody decides about their own."""
    if not actor.is_person:
        return Reason("Only people can approve decisions.")
    if actor.pk == row.author_id:
        return Reason("Someone else has to approve what you decided.")
    own = [row.author_id] if row.author_id is not None else []
    if uncounted := why_not_second(actor, own) or why_token_not_counted():
        return Reason(uncounted)
    if refused := why_not(actor, Verb.WAIVER_APPROVE, row.team, row.repository):
        return refused
    return None if row.state == State.REQUESTED else Reason(f"{row} is already {row.state}.", IllegalTransition)


def why_not_withdraw(actor: User, row: VexStatement) -> Reason | None:
    """Return why `actor` cannot end a decision: its author can, and who can approve it."""
    refused = why_not(actor, Verb.WAIVER_APPROVE, row.team, row.repository)
    if actor.pk != row.author_id and refused is not None:
        return refused
    if row.state in {State.REQUESTED, State.LIVE}:
        return None
    return Reason(f"{row} is already {row.state}.", IllegalTransition)


@transaction.atomic
def approve(statement_id: int, *, actor: User, reason: str = "") -> VexStatement:
    """Approve a decision as a second person. Raises NotFound, NotPermitted, IllegalTransition."""
    locks.wait_for(_LOCK)
    row = decision_for(actor, statement_id, locked=True)
    refuse_if(why_not_approve(actor, row))
    if row.until is not None and row.until <= clock.now():
        raise IllegalTransition(f"{row} ended before it was approved.")
    _move(row, State.LIVE, decided_by=actor, decided_at=clock.now(), decision=reason.strip()[:TEXT_MAX])
    _record(Action.VEX_APPROVED, row, actor, reason=row.decision)
    _take_effect(row, actor)
    return row


@transaction.atomic
def reject(statement_id: int, *, actor: User, reason: str) -> VexStatement:
    """Reject a decision, with a reason. Raises NotFound, NotPermitted, IllegalTransition, Malformed."""
    row = decision_for(actor, statement_id, locked=True)
    refuse_if(why_not_approve(actor, row))
    if not reason.strip():
        raise Malformed("Enter a reason: the author needs to know what to change.")
    _move(row, State.REJECTED, decided_by=actor, decided_at=clock.now(), decision=reason.strip()[:TEXT_MAX])
    _record(Action.VEX_REJECTED, row, actor, reason=row.decision)
    return row


@transaction.atomic
def withdraw(statement_id: int, *, actor: User, reason: str = "") -> VexStatement:
    """End a decision before its time. Raises NotFound, NotPermitted, IllegalTransition."""
    row = decision_for(actor, statement_id, locked=True)
    refuse_if(why_not_withdraw(actor, row))
    was_live = row.state == State.LIVE
    _move(row, State.WITHDRAWN, decision=reason.strip()[:TEXT_MAX] or row.decision)
    _record(Action.VEX_WITHDRAWN, row, actor, reason=reason.strip())
    if was_live:
        events.publish(events.VexChanged((row.pk,)))
    return row


def _take_effect(row: VexStatement, actor: User) -> None:
    """End the earlier decisions about the same, and tell who counts."""
    earlier = VexStatement.objects.select_for_update(of=("self",)).filter(
        document=None, state=State.LIVE, names__0=row.vulnerability, scope=row.scope, team=row.team,
        repository=row.repository, digest=row.digest, package=row.package,
    )  # fmt: skip
    ended = []
    for other in earlier.exclude(pk=row.pk):
        _move(other, State.WITHDRAWN, decision=f"Replaced by {row}.")
        _record(Action.VEX_WITHDRAWN, other, actor, reason=other.decision)
        ended.append(other.pk)
    events.publish(events.VexChanged((row.pk, *ended)))


def _move(row: VexStatement, state: str, **changes: object) -> None:
    """Move a locked statement to `state`; the only writer of `state` of decisions. Raises IllegalTransition."""
    if state not in VexStatement.NEXT:
        changes["ended_at"] = clock.now()
    move_row(row, state, **changes)


def _record(action: Action, row: VexStatement, actor: User, *, reason: str = "") -> None:
    audit.record(
        action, actor=actor, subject=row, team=row.team, repository=row.repository, reason=reason,
        details=VexDetails(
            vulnerability=row.vulnerability, status=row.status, justification=row.justification, scope=row.scope,
            package=row.package, digest=row.digest, until=row.until.isoformat() if row.until else "",
        ),
    )  # fmt: skip


def end_due() -> int:
    """End decisions whose time is over, so that their findings are open again; return how many. Safe to run twice."""
    now, ended = clock.now(), 0
    due = VexStatement.objects.filter(ended_at=None, until__lte=now)
    for pk in due.order_by("until", "pk").values_list("pk", flat=True)[:_BATCH]:
        with transaction.atomic():
            rows = VexStatement.objects.select_for_update(of=("self",), skip_locked=True)
            row = rows.select_related("team", "repository").filter(pk=pk, ended_at=None).first()
            if row is None:
                continue
            was_live = row.state == State.LIVE
            _move(row, State.EXPIRED)
            _record(Action.VEX_EXPIRED, row, system_user())
            if was_live:
                events.publish(events.VexChanged((row.pk,)))
            ended += 1
    return ended
