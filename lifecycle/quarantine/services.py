"""Actions on quarantines. Each function checks, locks, changes and audits in one transaction."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from accounts.models import User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import QuarantineDetails
from lifecycle.authority.identity import makers_of, why_not_counted, why_token_not_counted
from lifecycle.core import clock, locks
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.states import move_row
from lifecycle.quarantine.access import (
    image_to_judge,
    lock_quarantine_over,
    place_of,
    quarantine_for,
    why_not_quarantine,
)
from lifecycle.quarantine.models import Quarantine, QuarantineExemption
from lifecycle.quarantine.queries import covers_of
from lifecycle.quarantine.types import SecondPersonNeeded
from lifecycle.quarantine.withdrawing import begin_withdrawal, queue_withdrawal
from lifecycle.registry.models import Image

State = Quarantine.State
REASON_MAX: Final = 2000  # characters
INCIDENT_MAX: Final = 300
_LOCK: Final = 0x71756172  # "quar"


def hold_off() -> None:
    """Let no quarantine begin until this transaction ends, so that its check of quarantines holds when it commits.

    Many can hold it at once. Take it before any row: whoever quarantines waits for it, and then for rows.
    """
    locks.share(_LOCK)


@transaction.atomic
def quarantine(
    digest: str,
    *,
    actor: User,
    reason: str,
    incident: str = "",
    descendants: bool = True,
    withdraw: bool = False,
) -> Quarantine:
    """Block an image, and with `descendants` all images built on it, now and later. Counts in all teams, at once.

    With `withdraw`, a job also takes the image itself, its platforms and the indexes around it out of all repositories
    of the managed registry. Raises NotFound, NotPermitted, Malformed, or Conflict when it is quarantined already.
    """
    image = image_to_judge(actor, digest)
    refuse_if(why_not_quarantine(actor, image))
    _check_text(reason, incident)
    locks.wait_for(_LOCK)
    if other := Quarantine.objects.filter(image=image, released_at=None).first():
        raise Conflict(f"The image is already quarantined: {other}.", quarantine=other.pk)
    place = place_of(actor, image)
    made = Quarantine.objects.create(
        image=image, team=place.team if place else None, reason=reason.strip(), incident=incident.strip(),
        descendants=descendants, withdraw=withdraw, created_by=actor,
    )  # fmt: skip
    _record(Action.IMAGE_QUARANTINED, made, actor, reason=made.reason)
    events.publish(events.QuarantineChanged(made.pk, begins=True))
    if withdraw:
        begin_withdrawal(made, actor=actor)
    return made


def why_not_withdraw(actor: User, row: Quarantine) -> Reason | None:
    """Return why `actor` cannot let a quarantine stop pulls too."""
    if reason := why_not_quarantine(actor, row.image):
        return reason
    if not row.is_live:
        return Reason(f"{row} is already {_words(row)}.", IllegalTransition)
    return Reason(f"{row} stops pulls already.", IllegalTransition) if row.withdraw else None


@transaction.atomic
def withdraw(quarantine_id: int, *, actor: User, reason: str) -> Quarantine:
    """Let a live quarantine stop pulls too, as if it had begun with `withdraw`.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed, or Conflict when the vault's name is taken.
    """
    locks.wait_for(_LOCK)
    row = quarantine_for(actor, quarantine_id, locked=True)
    refuse_if(why_not_withdraw(actor, row))
    _check_text(reason)
    row.withdraw = True
    row.save(update_fields=["withdraw"])
    _record(Action.QUARANTINE_WITHDRAWN, row, actor, reason=reason.strip())
    begin_withdrawal(row, actor=actor)
    return row


def _check_text(reason: str, incident: str = "") -> None:
    if not reason.strip():
        raise Malformed("Enter a reason: everybody who is stopped reads it.")
    if len(reason) > REASON_MAX or len(incident) > INCIDENT_MAX or "\0" in reason + incident:
        raise Malformed(f"A reason has at most {REASON_MAX} characters, an incident {INCIDENT_MAX}.")


def why_not_request_release(actor: User, row: Quarantine) -> Reason | None:
    """Return why `actor` cannot ask for the release of a quarantine."""
    if reason := why_not_quarantine(actor, row.image):
        return reason
    if not actor.is_person:
        return Reason("Only people can ask for a release.")
    return None if row.state == State.ACTIVE else Reason(f"{row} is already {_words(row)}.", IllegalTransition)


def why_not_release(actor: User, row: Quarantine) -> Reason | None:
    """Return why `actor` cannot lift a quarantine: who asked for the release cannot, and nobody before that."""
    if reason := why_not_quarantine(actor, row.image):
        return reason
    first = row.release_requested_by if row.state != State.ACTIVE else row.created_by
    what = "asked for the release of" if row.state != State.ACTIVE else "quarantined"
    if reason := _why_not_second(actor, first or row.created_by, what):
        return reason
    if row.state == State.RELEASE_REQUESTED:
        return None
    if row.state == State.ACTIVE:
        return Reason("Ask for the release first. Another person then lifts the quarantine.", IllegalTransition)
    return Reason(f"{row} is already {_words(row)}.", IllegalTransition)


def why_not_refuse_release(actor: User, row: Quarantine) -> Reason | None:
    """Return why `actor` cannot refuse or take back a request for release."""
    if reason := why_not_quarantine(actor, row.image):
        return reason
    if row.state == State.RELEASE_REQUESTED:
        return None
    return Reason(f"{row} is {_words(row)}. Nobody asks for its release.", IllegalTransition)


def why_not_exempt(actor: User, row: Quarantine, image: Image) -> Reason | None:
    """Return why `actor` cannot exempt an image from a quarantine. Whoever quarantined it cannot."""
    if reason := why_not_quarantine(actor, image):
        return reason
    if reason := _why_not_second(actor, row.created_by, "quarantined"):
        return reason
    if not row.is_live:
        return Reason(f"{row} is already {_words(row)}.", IllegalTransition)
    covers = covers_of([image.pk], quarantine_id=row.pk).get(image.pk)
    if covers is None:
        return Reason(f"{row} does not cover this image.", Malformed)
    if covers[0].is_direct:
        return Reason("This is the quarantined image itself. Ask for the release of the quarantine.", Malformed)
    return None


def _why_not_second(actor: User, first: User, what: str) -> Reason | None:
    """Return why `actor` is not a second person beside `first`, who did `what`."""
    if not actor.is_person:
        return Reason("Only people can lift a quarantine or exempt an image.", SecondPersonNeeded)
    own = {first.pk, *makers_of([first.pk])[first.pk]}
    if actor.pk in own:
        return Reason(f"You {what} this image. Another person has to do this.", SecondPersonNeeded)
    uncounted = why_not_counted(actor, own) or why_token_not_counted()
    return Reason(uncounted, SecondPersonNeeded) if uncounted else None


def _words(row: Quarantine) -> str:
    return row.state.replace("_", " ")


@transaction.atomic
def request_release(quarantine_id: int, *, actor: User, reason: str) -> Quarantine:
    """Ask a second person to lift a quarantine. It still blocks. Raises NotFound, NotPermitted, IllegalTransition."""
    row = quarantine_for(actor, quarantine_id, locked=True)
    refuse_if(why_not_request_release(actor, row))
    _check_text(reason)
    _move(row, State.RELEASE_REQUESTED, release_requested_by=actor, release_requested_at=clock.now(),
          release_reason=reason.strip())  # fmt: skip
    _record(Action.QUARANTINE_RELEASE_REQUESTED, row, actor, reason=row.release_reason)
    return row


@transaction.atomic
def release(quarantine_id: int, *, actor: User, reason: str = "") -> Quarantine:
    """Lift a quarantine as a second person. Raises NotFound, SecondPersonNeeded, NotPermitted, IllegalTransition."""
    row = quarantine_for(actor, quarantine_id, locked=True)
    refuse_if(why_not_release(actor, row))
    _check_text(reason or "-")
    events.publish(events.QuarantineChanged(row.pk, begins=False))  # while it still covers what it covered
    _move(row, State.RELEASED, released_by=actor, released_at=clock.now())
    _record(Action.QUARANTINE_RELEASED, row, actor, reason=reason.strip())
    if row.withdraw:
        queue_withdrawal(row, actor=actor)
    return row


@transaction.atomic
def refuse_release(quarantine_id: int, *, actor: User, reason: str) -> Quarantine:
    """Keep a quarantine whose release was requested. Raises NotFound, NotPermitted, IllegalTransition, Malformed."""
    row = quarantine_for(actor, quarantine_id, locked=True)
    refuse_if(why_not_refuse_release(actor, row))
    _check_text(reason)
    _move(row, State.ACTIVE, release_requested_by=None, release_requested_at=None, release_reason="")
    _record(Action.QUARANTINE_RELEASE_REFUSED, row, actor, reason=reason.strip())
    return row


@transaction.atomic
def exempt(quarantine_id: int, digest: str, *, actor: User, reason: str) -> QuarantineExemption:
    """Exempt one image built on a quarantined one, as a second person. An exempt image does not exempt others on it.

    Raises NotFound, SecondPersonNeeded, NotPermitted, IllegalTransition, Malformed.
    """
    image = image_to_judge(actor, digest)
    row = lock_quarantine_over(actor, quarantine_id, image)
    if made := row.exemptions.filter(image=image).first():
        return made
    refuse_if(why_not_exempt(actor, row, image))
    _check_text(reason)
    events.publish(events.QuarantineChanged(row.pk, begins=False))
    made = QuarantineExemption.objects.create(quarantine=row, image=image, reason=reason.strip(), created_by=actor)
    place = place_of(actor, image)
    audit.record(
        Action.QUARANTINE_EXEMPTED, actor=actor, subject=row, team=place.team if place else row.team, image=image,
        reason=made.reason,
        details=QuarantineDetails(digest=row.image.digest, descendants=row.descendants, incident=row.incident),
    )  # fmt: skip
    return made


def _move(row: Quarantine, state: str, **changes: object) -> None:
    """Move a locked quarantine to `state`; the only writer of `state`. Raises IllegalTransition."""
    move_row(row, state, **changes)


def _record(action: Action, row: Quarantine, actor: User, *, reason: str) -> None:
    audit.record(
        action,
        actor=actor,
        subject=row,
        team=row.team,
        image=row.image,
        reason=reason,
        details=QuarantineDetails(digest=row.image.digest, descendants=row.descendants, incident=row.incident),
    )
