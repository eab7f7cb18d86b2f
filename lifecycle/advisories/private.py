"""Private advisories: OSV records of one's own, which a second person approves before they match anything.

Each row is one revision of a record. The live one is stored as the record of a feed of its own, so that findings,
alerts, quarantines and exports treat it as any other. A record is withdrawn by a revision that says so, as in OSV.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from django.db import transaction
from django.db.models import Q, QuerySet

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.advisories import services
from lifecycle.advisories.models import OWN_FEED, Advisory, Feed, PrivateAdvisory
from lifecycle.advisories.queries import current_names
from lifecycle.advisories.records import MalformedRecord, OsvRecord, is_id, parse_record, parse_time
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import PrivateAdvisoryDetails
from lifecycle.authority.identity import why_not_second, why_token_not_counted
from lifecycle.authority.queries import teams_where
from lifecycle.authority.rights import is_above_grants
from lifecycle.core import clock, locks
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.severities import RANKS, UNKNOWN
from lifecycle.core.states import move_row

State = PrivateAdvisory.State
DOCUMENT_MAX_BYTES: Final = 256 * 1024
TEXT_MAX: Final = 2000
WAITING_MAX: Final = 50  # proposals of one author
_LOCK: Final = 0x70616476  # one at a time: each approval replaces the revision before
_PACKAGES_SHOWN: Final = 20


def private_advisories_visible_to(actor: User) -> QuerySet[PrivateAdvisory]:
    """Return what is live, for everybody; all else for its author and for admins. Page by -id."""
    rows = PrivateAdvisory.objects.select_related("author", "decided_by")
    return rows if is_above_grants(actor) else rows.filter(Q(state=State.LIVE) | Q(author=actor))


def advisories_in_inbox(actor: User) -> QuerySet[PrivateAdvisory]:
    """Return the proposals that wait for `actor` as a second person: an admin who is not their author."""
    if not actor.is_person or not is_above_grants(actor):
        return PrivateAdvisory.objects.none()
    return private_advisories_visible_to(actor).filter(state=State.REQUESTED).exclude(author=actor)


def private_advisory_for(actor: User, pk: int, *, locked: bool = False) -> PrivateAdvisory:
    """Return one that `actor` can see, perhaps locked; raises NotFound."""
    rows = private_advisories_visible_to(actor).filter(pk=pk)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("Private advisory not found, or you don't have access.")
    return row


def why_not_propose(actor: User) -> Reason | None:
    """Return why `actor` cannot propose a private advisory: admins can, and who approves waivers in a whole team."""
    if is_above_grants(actor) or teams_where(actor, Verb.WAIVER_APPROVE).exists():
        return None
    return Reason("You need waiver.approve in a whole team to propose an advisory. Ask an admin.")


def why_not_review(actor: User, row: PrivateAdvisory) -> Reason | None:
    """Return why `actor` cannot approve or reject a proposal: it takes an admin who is not its author."""
    if not actor.is_person:
        return Reason("Only people can approve advisories.")
    if actor.pk == row.author_id:
        return Reason("Someone else has to approve what you proposed.")
    if uncounted := why_not_second(actor, [row.author_id]) or why_token_not_counted():
        return Reason(uncounted)
    if not is_above_grants(actor):
        return Reason("Only admins can approve an advisory, because it counts for all teams. Ask an admin.")
    return None if row.state == State.REQUESTED else Reason(f"{row} is already {row.state}.", IllegalTransition)


def why_not_cancel(actor: User, row: PrivateAdvisory) -> Reason | None:
    """Return why `actor` cannot take a proposal back: its author can."""
    if actor.pk != row.author_id:
        return Reason(f"Only {row.author} can take this proposal back.")
    return None if row.state == State.REQUESTED else Reason(f"{row} is already {row.state}.", IllegalTransition)


def parse_document(content: bytes) -> tuple[dict[str, Any], OsvRecord]:
    """Return an OSV document with its record, as it would be stored now.

    Raises Malformed with what is wrong: nothing of a record of our own is left out in silence.
    """
    if len(content) > DOCUMENT_MAX_BYTES:
        raise Malformed(f"An advisory has at most {DOCUMENT_MAX_BYTES // 1024} KiB.", field="document")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"This is not JSON: {error}.", field="document") from None
    name = document.get("id") if isinstance(document, dict) else None
    if not isinstance(name, str) or not is_id(name):
        raise Malformed('An advisory needs an "id", such as "ACME-2026-1".', field="document")
    document["modified"] = clock.now().isoformat(timespec="seconds").replace("+00:00", "Z")
    withdrawn = document.get("withdrawn")
    if withdrawn is not None and parse_time(withdrawn) is None:
        raise Malformed('"withdrawn" must be a time such as 2026-12-24T09:00:00Z.', field="document")
    try:
        record = parse_record(orjson.dumps(document), osv_id=name)
    except MalformedRecord as error:
        raise Malformed(f"{error.message}.", field="document") from None
    _check_affected(document, record)
    _check_names(record)
    return document, record


def _check_names(record: OsvRecord) -> None:
    """Refuse a record that changes what feeds say of others: that would close findings, or make them look harmless."""
    if record.withdrawn_at is not None:
        return
    names = {*record.aliases, *(record.upstream if len(record.upstream) == 1 else ())}
    groups = current_names(names)
    feeds = Advisory.objects.exclude(feed__kind=Feed.Kind.OWN).filter(tombstoned_at=None, withdrawn_at=None)
    known = list(feeds.filter(vulnerability__in={each for found in groups.values() for each in found}))
    of_feeds = {row.vulnerability for row in known}
    unknown = {name for name in names if name.startswith("CVE-") and not groups.get(name, set()) & of_feeds}
    different = sorted(of_feeds | unknown)
    if len(different) > 1:
        raise Malformed(
            f"It names {different[0]} and {different[1]}, which are different vulnerabilities. Write two.",
            field="document",
        )
    worse_one = min(known, key=lambda row: RANKS[row.severity], default=None)
    if record.severity != UNKNOWN and worse_one is not None and RANKS[worse_one.severity] < RANKS[record.severity]:
        raise Malformed(
            f"{worse_one.osv_id} says {worse_one.severity}, and this record {record.severity}. Leave the severity out."
            " To close a finding, decide about it (VEX).",
            field="document",
        )


def _check_affected(document: Mapping[str, Any], record: OsvRecord) -> None:
    listed = document.get("affected")
    wanted = len(listed) if isinstance(listed, list) else 0
    if not wanted or not record.affected:
        raise Malformed(
            'It affects no package that Gravingdock can match. "affected" needs a package with an ecosystem and a name'
            " as OSV has them, and versions or ranges.",
            field="document",
        )
    unread = [item for item in record.affected if item.interval.is_unevaluated]
    if unread:
        raise Malformed(
            f"A range of {unread[0].ecosystem} {unread[0].name} cannot be read: {unread[0].interval.problem}.",
            field="document",
        )


@transaction.atomic
def propose(content: bytes, *, actor: User, reason: str = "") -> PrivateAdvisory:
    """Propose a private advisory, or another revision of one. It matches nothing until a second person approves it.

    Raises NotPermitted, Malformed, and Conflict while a proposal with the same id waits.
    """
    refuse_if(why_not_propose(actor))
    document, record = parse_document(content)
    locks.wait_for(_LOCK)
    foreign = Advisory.objects.filter(osv_id=record.osv_id).exclude(feed__kind=Feed.Kind.OWN).select_related("feed")
    if other := foreign.first():
        raise Conflict(
            f"Feed {other.feed} has an advisory {record.osv_id}. Choose an id of your own, and name it as an alias."
        )
    if waiting := PrivateAdvisory.objects.filter(osv_id=record.osv_id, state=State.REQUESTED).first():
        raise Conflict(f"{waiting} with the id {record.osv_id} waits for approval.")
    if PrivateAdvisory.objects.filter(author=actor, state=State.REQUESTED).count() >= WAITING_MAX:
        raise Conflict(f"{WAITING_MAX} of your proposals wait. Take some back, or ask an admin to decide.")
    row = PrivateAdvisory.objects.create(
        osv_id=record.osv_id, document=document, state=State.REQUESTED, author=actor, reason=_checked(reason)
    )
    _record(Action.ADVISORY_PROPOSED, row, actor, record, reason=row.reason)
    return row


@transaction.atomic
def approve(pk: int, *, actor: User, reason: str = "") -> PrivateAdvisory:
    """Approve a proposal as a second person: it replaces the revision before, and packages are matched at once.

    Raises NotFound, NotPermitted, IllegalTransition, Malformed.
    """
    locks.wait_for(_LOCK)
    row = private_advisory_for(actor, pk, locked=True)
    refuse_if(why_not_review(actor, row))
    row.document, record = parse_document(orjson.dumps(row.document))  # with the time of now
    for former in PrivateAdvisory.objects.select_for_update().filter(osv_id=row.osv_id, state=State.LIVE):
        move_row(former, State.REPLACED)
    move_row(
        row, State.LIVE, document=row.document, decided_by=actor, decided_at=clock.now(), decision=_checked(reason)
    )
    services.store_own(_own_feed(), record)
    _record(Action.ADVISORY_APPROVED, row, actor, record, reason=row.decision)
    return row


@transaction.atomic
def reject(pk: int, *, actor: User, reason: str) -> PrivateAdvisory:
    """Reject a proposal with a reason. Raises NotFound, NotPermitted, IllegalTransition, Malformed."""
    row = private_advisory_for(actor, pk, locked=True)
    refuse_if(why_not_review(actor, row))
    if not reason.strip():
        raise Malformed("Enter a reason: the author needs to know what to change.", field="reason")
    move_row(row, State.REJECTED, decided_by=actor, decided_at=clock.now(), decision=_checked(reason))
    _record(Action.ADVISORY_REJECTED, row, actor, None, reason=row.decision)
    return row


@transaction.atomic
def cancel(pk: int, *, actor: User) -> PrivateAdvisory:
    """Take back a proposal of one's own. Raises NotFound, NotPermitted, IllegalTransition."""
    row = private_advisory_for(actor, pk, locked=True)
    refuse_if(why_not_cancel(actor, row))
    move_row(row, State.CANCELLED)
    _record(Action.ADVISORY_CANCELLED, row, actor, None)
    return row


def _own_feed() -> Feed:
    """Return the feed of all private advisories. It is loaded: what it brings is a difference to alert on."""
    feed, _ = Feed.objects.get_or_create(kind=Feed.Kind.OWN, defaults={"name": OWN_FEED, "location": ""})
    return feed


def _checked(text: str) -> str:
    if len(text) > TEXT_MAX or "\0" in text:
        raise Malformed(f"A reason has at most {TEXT_MAX} characters.", field="reason")
    return text.strip()


def _record(action: Action, row: PrivateAdvisory, actor: User, record: OsvRecord | None, *, reason: str = "") -> None:
    packages = sorted({f"{item.ecosystem} {item.name}" for item in record.affected}) if record is not None else []
    details = PrivateAdvisoryDetails(
        advisory=row.osv_id,
        severity=record.severity if record is not None else "",
        packages=tuple(packages[:_PACKAGES_SHOWN]),
        withdrawn=row.is_withdrawal,
    )
    audit.record(action, actor=actor, subject=row, reason=reason, details=details)
