"""Ask external checks about images: queued where an answer is missing or old, asked by a job, stored as a fact."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import Q

from accounts.queries import system_user
from lifecycle import events
from lifecycle.core import clock, sealing, signed_replies
from lifecycle.core.signed_replies import Reply
from lifecycle.jobs import services as jobs
from lifecycle.policies.kinds import ASK
from lifecycle.policies.models import ExternalAnswer, ExternalCheck
from lifecycle.policy.catalogue import EXTERNAL
from lifecycle.policy.facts import ExternalFact
from lifecycle.policy.images import Judged
from lifecycle.policy.types import Status
from lifecycle.registry.models import Image, Repository

AGAIN_AFTER: Final = timedelta(minutes=1)  # between attempts while there is no answer
REFRESH_AFTER: Final = timedelta(minutes=10)  # between attempts while an answer still counts


def checks_for(team_ids: Collection[int]) -> Mapping[int, Mapping[str, ExternalCheck]]:
    """Return {team id: {name in rules: check}}: the checks of the site and of the team itself, never of another."""
    rows = ExternalCheck.objects.filter(Q(team=None) | Q(team__in=team_ids)).select_related("team").order_by("pk")
    found = list(rows)
    return {pk: {str(row): row for row in found if row.team_id in {None, pk}} for pk in team_ids}


def facts_of_checks(
    pairs: Collection[tuple[int, int]], teams: Mapping[int, int]
) -> dict[tuple[int, int], dict[str, ExternalFact]]:
    """Return {(image id, repository id): {name of a check: its fact}}; `teams` has the team of each repository.

    Two queries. An answer to an earlier revision of the check, with another address or secret, does not count.
    """
    checks = checks_for(set(teams.values()))
    images, repositories = {pk for pk, _ in pairs}, {pk for _, pk in pairs}
    rows = ExternalAnswer.objects.filter(image__in=images, repository__in=repositories)
    answers = {(row.image_id, row.repository_id, row.check_asked_id): row for row in rows}
    return {
        (image, repository): {
            name: _fact(name, check, answers.get((image, repository, check.pk)))
            for name, check in checks[teams[repository]].items()
        }
        for image, repository in pairs
    }


def _fact(name: str, check: ExternalCheck, row: ExternalAnswer | None) -> ExternalFact:
    if row is None or row.revision != check.revision:
        return ExternalFact(name)
    return ExternalFact(name, row.has_passed, row.answered_at, row.message, row.problem)


def ask_where_due(judged: Iterable[Judged], image: Image, repository: Repository) -> int:
    """Queue the question for each rule about an external check whose answer is missing or half way to too old.

    Returns how many were queued. Call it in the transaction that judged a source repository's image. A rule whose
    check does not exist is left out.
    """
    wanted = {
        item.rule.parameters["check"]: item.rule.parameters["max_age_hours"]
        for item in judged
        if item.rule.kind == EXTERNAL
    }
    if not wanted:
        return 0
    checks, queued = checks_for([repository.team_id])[repository.team_id], 0
    for name, hours in wanted.items():
        if (check := checks.get(name)) is not None:
            queued += _queue_if_due(check, image, repository, timedelta(hours=hours))
    return queued


def lacks_answer(judged: Iterable[Judged], repository: Repository) -> bool:
    """Return whether one of these rules waits for an answer: its check exists, and said neither yes nor no lately.

    A rule that a waiver opens waits for nothing.
    """
    names = {
        item.rule.parameters["check"]
        for item in judged
        if item.rule.kind == EXTERNAL and item.outcome.status in {Status.PENDING, Status.ERROR}
    }
    return bool(names) and not names.isdisjoint(checks_for([repository.team_id])[repository.team_id])


def _queue_if_due(check: ExternalCheck, image: Image, repository: Repository, max_age: timedelta) -> bool:
    key: dict[str, Any] = {"check_asked": check, "image": image, "repository": repository}
    row = ExternalAnswer.objects.filter(**key).first()
    if row is not None and not _is_due(row, check, max_age, clock.now()):
        return False
    row, _ = ExternalAnswer.objects.get_or_create(**key)
    ExternalAnswer.objects.filter(pk=row.pk).update(queued_at=clock.now())
    jobs.queue(ASK, subject_id=row.pk, actor=system_user(), dedupe_key=str(row.pk))
    return True


def _is_due(row: ExternalAnswer, check: ExternalCheck, max_age: timedelta, now: datetime) -> bool:
    if row.queued_at is None:
        return True
    is_answered = row.revision == check.revision and row.has_passed is not None and row.answered_at is not None
    if is_answered and row.answered_at is not None and now - row.answered_at < max_age:
        # Asked again at half time, so that a ready request does not stop being ready while the service answers.
        return now - row.answered_at > max_age / 2 and now - row.queued_at > REFRESH_AFTER
    return now - row.queued_at > AGAIN_AFTER or (row.asked_at is not None and row.revision != check.revision)


def ask(answer_id: int) -> Reply | None:
    """Ask the service about one image, and store what it says. Returns its reply, or None when nothing is to be asked.

    Outside of transactions: read, call, then lock and write. Safe to run twice.
    """
    rows = ExternalAnswer.objects.select_related("check_asked__team", "image", "repository__team")
    row = rows.filter(pk=answer_id).first()
    if row is None:
        return None
    check = row.check_asked
    try:
        address = sealing.unseal(bytes(check.address_sealed), check, "address_sealed")
        secret = sealing.unseal(bytes(check.secret_sealed), check, "secret_sealed")
    except sealing.Unreadable:
        reply = Reply(None, "The address or the secret of the check cannot be read. Set them again.")
    else:
        number = f"check-{row.pk}-{secrets.token_hex(8)}"
        question = {"check": str(check), "team": row.repository.team.slug, "repository": row.repository.name,
                    "digest": row.image.digest}  # fmt: skip
        reply = signed_replies.ask(address, secret, number=number, question=question)
    record_reply(row.pk, reply, revision=check.revision)
    return reply


@transaction.atomic
def record_reply(answer_id: int, reply: Reply, *, revision: int) -> None:
    """Store a reply to the check as it was at `revision`. Without a signature, an answer that still counts is kept."""
    row = ExternalAnswer.objects.select_for_update().filter(pk=answer_id).first()
    if row is None or row.revision > revision:
        return
    before = (row.has_passed, row.message, row.problem, row.revision)
    if row.revision != revision:
        row.has_passed, row.message, row.answered_at, row.revision = None, "", None, revision
    row.asked_at = clock.now()
    if reply.is_signed:
        row.has_passed, row.message, row.answered_at, row.problem = reply.is_good, reply.words, row.asked_at, ""
    else:
        row.problem = reply.words[:500]
    row.save()
    if reply.is_signed or before != (row.has_passed, row.message, row.problem, row.revision):
        events.publish(events.ExternalAnswered(row.image_id, row.repository_id))
