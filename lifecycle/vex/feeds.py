"""VEX feeds as people keep them: added, trusted by a second person, changed, removed, and read on a schedule."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, Final

from django.db import transaction
from django.db.models import Q

from accounts.models import Team, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.advisories.exploit_sync import ListShrank
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import VexFeedDetails, VexFeedSynced
from lifecycle.authority.identity import why_not_second, why_token_not_counted
from lifecycle.core import clock
from lifecycle.core.address import parse_address
from lifecycle.core.errors import Conflict, IllegalTransition, LifecycleError, LimitExceeded, Malformed, StaleVersion
from lifecycle.core.http import HttpClient, Unreachable, origin, parse_outbound_url
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.types import Digest
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.signatures.keys import load_public_key
from lifecycle.vex import documents, feed_reading, reading
from lifecycle.vex.access import feed_for, why_not
from lifecycle.vex.constants import FEED_EVERY_HOURS_MAX, FEED_PATTERNS_MAX, FEED_RUN_S
from lifecycle.vex.kinds import SYNC_VEX_FEED
from lifecycle.vex.models import VexDocument, VexFeed, VexFeedFile, VexStatement
from lifecycle.vex.types import Parsed

_NAME: Final = re.compile(r"[a-z0-9]+(?:[-._][a-z0-9]+)*")
_JITTER: Final = 0.1  # of the interval, so that many installations do not call a source at the same moment
_AGAIN_AFTER: Final = timedelta(hours=1)  # after a failure, unless the feed is due earlier
_GUARDED_FROM: Final = 20  # a shorter list can shrink as it likes
_PROBLEMS_SHOWN: Final = 20
State = VexDocument.State
Progress = Callable[[int, int | None, str], None]  # done, total, text


@transaction.atomic
def add_feed(
    *,
    actor: User,
    name: str,
    location: str,
    team: Team | None,
    public_key: str = "",
    speaks_for: Sequence[str] = (),
    every_hours: int | None = 24,
) -> VexFeed:
    """Add a feed about the images of a team, or of everybody (None), and queue its first run. It brings advice at
    first.

    `every_hours` None: only by hand. Raises NotPermitted, Malformed, or Conflict when the name is taken.
    """
    refuse_if(why_not(actor, Verb.WAIVER_REQUEST, team))
    if not _NAME.fullmatch(name) or len(name) > 60:
        raise Malformed("A name has at most 60 small letters, digits, and -._ between them, such as vendor-vex.")
    if VexFeed.objects.filter(name=name, team=team).exists():
        raise Conflict(f"There is already a feed named {name}. Choose another name.")
    feed = VexFeed(name=name, team=team, added_by=actor)
    feed.location, feed.public_key = _checked_location(location), _checked_key(public_key)
    refuse_if(why_not_read(feed))
    feed.speaks_for = _checked_patterns(speaks_for)
    _set_schedule(feed, every_hours)
    feed.save()
    _record(Action.VEX_FEED_ADDED, feed, actor)
    _queue(feed, actor)
    return feed


@transaction.atomic
def change_feed(
    feed_id: int,
    *,
    actor: User,
    revision: int | None = None,
    location: str | None = None,
    public_key: str | None = None,
    speaks_for: Sequence[str] | None = None,
    every_hours: int | None = None,
    by_hand: bool = False,
) -> VexFeed:
    """Change a feed; None keeps a value, and `by_hand` turns its schedule off.

    With another address, key or limit it is another source: what it said is withdrawn, a second person must trust it
    again, and it is read again. Raises NotFound, NotPermitted, Malformed, StaleVersion.
    """
    feed = feed_for(actor, feed_id, locked=True)
    refuse_if(why_not(actor, Verb.WAIVER_REQUEST, feed.team))
    if revision is not None and revision != feed.revision:
        raise StaleVersion("Another user changed this feed. Load it again, then repeat your change.")
    before = (feed.location, feed.public_key, feed.speaks_for)
    if location is not None:
        feed.location = _checked_location(location)
    if public_key is not None:
        feed.public_key = _checked_key(public_key)
    if speaks_for is not None:
        feed.speaks_for = _checked_patterns(speaks_for)
    refuse_if(why_not_read(feed))
    _set_schedule(feed, None if by_hand else every_hours or feed.every_hours)
    is_other = before != (feed.location, feed.public_key, feed.speaks_for)
    if is_other:
        _withdraw_all(feed)
        feed.files.all().delete()
        feed.added_by, feed.trusted_by, feed.trusted_at = actor, None, None
        feed.synced_at, feed.problem, feed.result = None, "", {}
    feed.revision += 1
    feed.save()
    _record(Action.VEX_FEED_CHANGED, feed, actor)
    if is_other:
        _queue(feed, actor)
    return feed


def why_not_read(feed: VexFeed) -> Reason | None:
    """Return why nothing of a feed can be believed: whoever is on the way could write it; within a machine, nobody."""
    scheme, host, _ = origin(parse_outbound_url(feed.location))
    address = parse_address(host.strip("[]"))
    if feed.public_key or scheme == "https" or (address is not None and ip_address(address).is_loopback):
        return None
    return Reason(
        "Without https, anybody on the way can change what the feed says. Use an https address, or enter the public"
        " key of its signatures.",
        Malformed,
    )


@transaction.atomic
def remove_feed(feed_id: int, *, actor: User, reason: str = "") -> None:
    """Remove a feed and withdraw what it said. Raises NotFound, NotPermitted."""
    feed = feed_for(actor, feed_id, locked=True)
    refuse_if(why_not_remove(actor, feed))
    _withdraw_all(feed)
    _record(Action.VEX_FEED_REMOVED, feed, actor, reason=reason.strip())
    feed.delete()


def why_not_remove(actor: User, feed: VexFeed) -> Reason | None:
    """Return why `actor` cannot remove a feed or end its trust: who added it can, and who can trust it."""
    if actor.pk == feed.added_by_id:
        return None
    return why_not(actor, Verb.WAIVER_APPROVE, feed.team)


def why_not_change(actor: User, feed: VexFeed) -> Reason | None:
    """Return why `actor` cannot change or run a feed."""
    return why_not(actor, Verb.WAIVER_REQUEST, feed.team)


def why_not_trust(actor: User, feed: VexFeed) -> Reason | None:
    """Return why `actor` cannot let a feed count. Nobody trusts for all what they added themselves."""
    problem = ""
    if not actor.is_person:
        problem = "Only people can trust feeds."
    elif actor.pk == feed.added_by_id:
        problem = "Someone else has to trust the feed that you added."
    else:
        problem = why_not_second(actor, [feed.added_by_id]) or why_token_not_counted()
    if problem:
        return Reason(problem)
    if refused := why_not(actor, Verb.WAIVER_APPROVE, feed.team):
        return refused
    return Reason(f"{feed} is trusted already.", IllegalTransition) if feed.is_trusted else None


def why_not_distrust(actor: User, feed: VexFeed) -> Reason | None:
    """Return why `actor` cannot end the trust in a feed."""
    if refused := why_not_remove(actor, feed):
        return refused
    return None if feed.is_trusted else Reason(f"{feed} is not trusted.", IllegalTransition)


@transaction.atomic
def trust(feed_id: int, *, actor: User, reason: str = "") -> VexFeed:
    """Let what a feed says count, now and later, as a second person.

    Raises NotFound, NotPermitted, IllegalTransition.
    """
    feed = feed_for(actor, feed_id, locked=True)
    refuse_if(why_not_trust(actor, feed))
    feed.trusted_by, feed.trusted_at = actor, clock.now()
    feed.revision += 1
    feed.save(update_fields=["trusted_by", "trusted_at", "revision"])
    for document in _documents(feed, State.ADVICE):
        _apply(document, actor)
    _record(Action.VEX_FEED_TRUSTED, feed, actor, reason=reason.strip())
    return feed


@transaction.atomic
def distrust(feed_id: int, *, actor: User, reason: str = "") -> VexFeed:
    """Make what a feed says advice again. Raises NotFound, NotPermitted, IllegalTransition."""
    feed = feed_for(actor, feed_id, locked=True)
    refuse_if(why_not_distrust(actor, feed))
    feed.trusted_by, feed.trusted_at = None, None
    feed.revision += 1
    feed.save(update_fields=["trusted_by", "trusted_at", "revision"])
    for document in _documents(feed, State.APPLIED):
        documents.move(document, State.ADVICE, accepted_by=None, why_advice=documents.UNTRUSTED)
        documents.set_statements(document, VexStatement.State.ADVICE)
    _record(Action.VEX_FEED_DISTRUSTED, feed, actor, reason=reason.strip())
    return feed


@transaction.atomic
def sync_now(feed_id: int, *, actor: User, accept_smaller: bool = False) -> Job:
    """Queue a run, and return its job; one that waits already is returned instead. Raises NotFound, NotPermitted.

    With `accept_smaller`, also a list that lost most of its documents is taken.
    """
    feed = feed_for(actor, feed_id)
    refuse_if(why_not_change(actor, feed))
    return _queue(feed, actor, accept_smaller=accept_smaller)


def _queue(feed: VexFeed, actor: User, *, accept_smaller: bool = False) -> Job:
    payload = {"accept_smaller": True} if accept_smaller else {}
    key = f"vex-feed:{feed.pk}:{accept_smaller}"
    return jobs.queue(SYNC_VEX_FEED, subject_id=feed.pk, actor=actor, payload=payload, dedupe_key=key)


@transaction.atomic
def queue_due_feeds() -> int:
    """Queue the feeds whose time has come, and set their next time; return how many."""
    now = clock.now()
    rows = VexFeed.objects.select_for_update(skip_locked=True).filter(due_at__lte=now)
    due = list(rows.order_by("pk"))
    for feed in due:
        feed.due_at = _next(now, feed.every_hours or 1)
        feed.save(update_fields=["due_at"])
        _queue(feed, system_user())
    return len(due)


def run_sync(feed: VexFeed, *, actor: User, progress: Progress, accept_smaller: bool = False) -> dict[str, Any]:
    """Read a feed, store what changed, and return the counts. What cannot be read keeps what it said before.

    A failure of the whole run is stored on the feed with its reason, and raised again.
    """
    VexFeed.objects.filter(pk=feed.pk).update(tried_at=clock.now())
    client = HttpClient()
    run = _Run(feed, actor, client)
    try:
        refuse_if(why_not_read(feed))  # one that was added before this was checked
        progress(0, None, "reading the list")
        folder = feed_reading.is_folder(feed.location)
        found = feed_reading.listed_in(client, feed.location) if folder else {"": ""}
        known = {row.path: row for row in feed.files.all()}
        _check_size(known, found, accept_smaller=accept_smaller)
        for done, (path, listed) in enumerate(sorted(found.items())):
            progress(done, len(found), path or feed.name)
            run.read(known.get(path) or VexFeedFile(feed=feed, path=path), listed)
        for path in sorted(known.keys() - found.keys()):
            run.gone(known[path])
    except LifecycleError as error:
        _failed(feed, error)
        raise
    finally:
        client.close()
    return run.finished()


def _check_size(known: Collection[str], found: Collection[str], *, accept_smaller: bool) -> None:
    """Raise ListShrank for a list that lost most of its documents: more likely a broken source than good news."""
    left = len(set(known) & set(found))
    if not accept_smaller and len(known) >= _GUARDED_FROM and left * 2 < len(known):
        raise ListShrank(
            f"The list names {left:,} of the {len(known):,} documents that it had. Nothing changed. If that is right,"
            " run it again and accept fewer documents."
        )


class _Run:
    """One run over the files of a feed. Each file is a transaction of its own."""

    def __init__(self, feed: VexFeed, actor: User, client: HttpClient) -> None:
        self._feed = feed
        self._actor = actor
        self._client = client
        self._until = time.monotonic() + FEED_RUN_S
        self._stored = self._withdrawn = self._unchanged = 0
        self._problems: list[str] = []

    def read(self, file: VexFeedFile, listed: str) -> None:
        """Read one file, unless its list or its server says that it is unchanged."""
        if time.monotonic() > self._until:
            raise LimitExceeded("The time limit of a run is over. The next run continues.")
        is_known = file.pk is not None and not file.problem
        if is_known and listed and listed == file.listed:
            self._unchanged += 1
            return
        try:
            self._fetch(file, listed, is_known=is_known)
        except Unreachable:
            raise
        except LifecycleError as error:
            text = f"{file.path or 'The document'}: {error.message}"[:500]
            self._problems.append(text)
            with transaction.atomic():
                if self._is_current():
                    file.problem = text
                    file.save()

    def _fetch(self, file: VexFeedFile, listed: str, *, is_known: bool) -> None:
        address = feed_reading.address_of(self._feed.location, file.path)
        fetched = feed_reading.fetch(
            self._client, address, etag=file.etag if is_known else "", modified=file.modified if is_known else ""
        )
        if fetched.is_gone:
            self.gone(file)
            return
        if fetched.content is not None and self._feed.public_key:
            feed_reading.check_signature(self._client, address, fetched.content, self._feed.public_key)
        parsed = None if fetched.content is None else reading.parse(fetched.content)
        with transaction.atomic():
            if not self._is_current():
                raise IllegalTransition("The feed was changed while it was read. Run it again.")
            if parsed is None or fetched.content is None:
                self._unchanged += 1
            else:
                self._store(file, feed_reading.limited(parsed, self._feed.speaks_for), fetched.content)
            file.etag, file.modified, file.listed, file.problem = fetched.etag, fetched.modified, listed, ""
            file.save()

    def _is_current(self) -> bool:
        """Lock the feed, and return whether it is still the source that this run reads."""
        row = VexFeed.objects.select_for_update().filter(pk=self._feed.pk).first()
        if row is None or (row.location, row.public_key, row.speaks_for) != (
            self._feed.location, self._feed.public_key, self._feed.speaks_for,
        ):  # fmt: skip
            return False
        self._feed.trusted_by_id = row.trusted_by_id
        return True

    def _store(self, file: VexFeedFile, parsed: Parsed, content: bytes) -> None:
        """Store a document in place of the one that the file had. The new one counts before the old one ends."""
        digest = Digest.of(content).text
        old = _document_of(file)
        if old is not None and old.digest == digest:
            self._unchanged += 1
            return
        file.document = None
        if parsed.statements or parsed.refused:
            new = documents.stored(parsed, content, digest, self._feed.added_by, self._feed.team, feed=self._feed)
            if self._feed.trusted_by is not None:
                _apply(new, self._feed.trusted_by)
            file.document = new
        if old is not None:
            _end(old, State.WITHDRAWN if file.document is None else State.REPLACED)
        self._stored += 1

    def gone(self, file: VexFeedFile) -> None:
        """Withdraw what a file said that the feed does not have any more."""
        with transaction.atomic():
            if not self._is_current():
                return
            old = _document_of(file)
            if old is not None:
                _end(old, State.WITHDRAWN)
                self._withdrawn += 1
            if file.pk is not None:
                file.delete()

    def finished(self) -> dict[str, Any]:
        """Store the result on the feed and in the audit log, and return it."""
        result = {
            "stored": self._stored, "unchanged": self._unchanged, "withdrawn": self._withdrawn,
            "problem_count": len(self._problems), "problems": self._problems[:_PROBLEMS_SHOWN],
        }  # fmt: skip
        more = f" (and {len(self._problems) - 1:,} more)" if len(self._problems) > 1 else ""
        problem = f"{self._problems[0][:450]}{more}" if self._problems else ""
        changes: dict[str, Any] = {"result": result, "problem": problem}
        if not problem:
            changes["synced_at"] = clock.now()
        with transaction.atomic():
            if self._is_current():
                VexFeed.objects.filter(pk=self._feed.pk).update(**changes)
                if self._stored or self._withdrawn:
                    details = VexFeedSynced(
                        feed=self._feed.name, stored=self._stored, withdrawn=self._withdrawn,
                        failed=len(self._problems),
                    )  # fmt: skip
                    audit.record(
                        Action.VEX_FEED_SYNCED, actor=self._actor, subject=self._feed, team=self._feed.team,
                        details=details,
                    )  # fmt: skip
        return result


def _apply(document: VexDocument, trusted_by: User) -> None:
    documents.move(document, State.APPLIED, accepted_by=trusted_by, why_advice="")
    documents.set_statements(document, VexStatement.State.LIVE)


def _end(document: VexDocument, state: str) -> None:
    documents.move(document, state)
    documents.set_statements(document, VexStatement.State.WITHDRAWN)


def _document_of(file: VexFeedFile) -> VexDocument | None:
    rows = VexDocument.objects.filter(pk__in=[file.document_id], state__in=VexDocument.NEXT)
    return rows.defer("content").first()


def _documents(feed: VexFeed, *states: str) -> list[VexDocument]:
    return list(feed.documents.select_for_update(of=("self",)).filter(state__in=states).defer("content"))


def _withdraw_all(feed: VexFeed) -> None:
    for document in _documents(feed, *VexDocument.NEXT):
        _end(document, State.WITHDRAWN)


def _failed(feed: VexFeed, error: LifecycleError) -> None:
    """Store why a run failed; try again within an hour if the feed has a schedule."""
    problem = error.message
    if error.code == "destination_forbidden":
        problem = f"{problem} If it is a mirror in your network, ask an admin to add its host to OUTBOUND_ALLOW."
    row = VexFeed.objects.filter(pk=feed.pk)
    row.update(problem=problem[:500])
    soon = clock.now() + _AGAIN_AFTER * random.uniform(1 - _JITTER, 1 + _JITTER)
    row.filter(Q(due_at__gt=soon)).update(due_at=soon)


def _checked_location(location: str) -> str:
    found = location.strip()
    if not found.startswith(("http://", "https://")) or len(found) > 500:
        raise Malformed("Enter the https address of a document, or of a folder, which ends with /.")
    parse_outbound_url(found)
    if feed_reading.is_folder(found) and "?" in found:
        raise Malformed("The address of a folder has no query (?).")
    return found


def _checked_key(text: str) -> str:
    found = text.strip()
    if found:
        load_public_key(found)
    return found


def _checked_patterns(patterns: Sequence[str]) -> list[str]:
    if len(patterns) > FEED_PATTERNS_MAX:
        raise Malformed(f"A feed can speak for at most {FEED_PATTERNS_MAX} patterns.")
    return sorted({feed_reading.checked_pattern(text) for text in patterns if text.strip()})


def _set_schedule(feed: VexFeed, every_hours: int | None) -> None:
    if every_hours is not None and not 1 <= every_hours <= FEED_EVERY_HOURS_MAX:
        raise Malformed(f"The hours between two runs must be from 1 to {FEED_EVERY_HOURS_MAX}.")
    if every_hours != feed.every_hours or feed.due_at is None:
        feed.due_at = None if every_hours is None else _next(clock.now(), every_hours)
    feed.every_hours = every_hours


def _next(now: datetime, hours: int) -> datetime:
    return now + timedelta(hours=hours) * random.uniform(1 - _JITTER, 1 + _JITTER)


def fingerprint_of(feed: VexFeed) -> str:
    """Return the fingerprint of the key of a feed; "" without one."""
    return load_public_key(feed.public_key).fingerprint if feed.public_key else ""


def _record(action: Action, feed: VexFeed, actor: User, *, reason: str = "") -> None:
    details = VexFeedDetails(
        feed=feed.name, location=feed.location, key=fingerprint_of(feed), speaks_for=tuple(feed.speaks_for),
        every_hours=feed.every_hours or 0,
    )  # fmt: skip
    audit.record(action, actor=actor, subject=feed, team=feed.team, reason=reason, details=details)
