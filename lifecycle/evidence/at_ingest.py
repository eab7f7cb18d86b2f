"""Judge images by the rules at ingest, once they are scanned, matched and their signatures read; tell the team."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.urls import reverse

from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import IngestFailed
from lifecycle.authority.queries import people_who
from lifecycle.core import clock
from lifecycle.evidence.findings import matching_images
from lifecycle.evidence.models import IngestVerdict
from lifecycle.evidence.verdicts import judge
from lifecycle.notices.telling import person_behind, tell
from lifecycle.notices.topics import Topic, register
from lifecycle.notices.types import Telling
from lifecycle.policies.asking import ask_where_due, lacks_answer
from lifecycle.policies.models import PolicyRevision
from lifecycle.policy.images import Judged
from lifecycle.policy.rulesets import Point
from lifecycle.registry.models import Image, Repository, RepositoryImage
from lifecycle.registry.platforms import trees_of
from lifecycle.trust.models import TrustCheck

FAILED: Final = register(
    Topic(
        "policy.ingest_failed", "Pushed image fails", "An image that you pushed, or can build, fails a rule at ingest."
    )
)
AGAIN_AFTER: Final = timedelta(seconds=10)  # while facts are missing
ASK_AGAIN_AFTER: Final = timedelta(minutes=1)  # while an external check has not answered, or after an error
WAITS_AT_MOST: Final = timedelta(hours=1)  # then what is missing counts as unknown
_BATCH: Final = 100  # images of one round

# Locked in order, so that two scans and a synchronisation at once do not wait for each other.
_MARK_AGAIN: Final = """
WITH wanted AS (
    SELECT id FROM lifecycle_ingestverdict
    WHERE (image_id = ANY(%(ids)s::bigint[])
           OR image_id IN (SELECT index_id FROM lifecycle_indexentry WHERE child_id = ANY(%(ids)s::bigint[])))
      AND (%(repository)s::bigint IS NULL OR repository_id = %(repository)s)
    ORDER BY id FOR UPDATE
)
UPDATE lifecycle_ingestverdict v
SET due_at = %(now)s, marked_at = CASE WHEN v.due_at IS NULL THEN %(now)s ELSE v.marked_at END
FROM wanted WHERE v.id = wanted.id
"""
log = structlog.get_logger(__name__)


def mark(image_id: int) -> None:
    """Make an image due in each source repository that has it, once for each. Without a rule set, nothing is judged."""
    if not PolicyRevision.objects.exists():
        return
    held = RepositoryImage.objects.filter(
        image=image_id, is_top_level=True, removed_at=None, repository__environment=None
    )
    now = clock.now()
    rows = [
        IngestVerdict(image_id=image_id, repository_id=pk, due_at=now)
        for pk in held.values_list("repository", flat=True)
    ]
    IngestVerdict.objects.bulk_create(rows, ignore_conflicts=True)


def mark_again(image_ids: Collection[int], repository_id: int | None = None) -> None:
    """Make images due again that were judged at ingest, also through their indexes: their facts changed.

    What waits already keeps the time since when it waits, so that no stream of changes makes it wait for ever.
    """
    if not image_ids:
        return
    where = {"ids": list(image_ids), "repository": repository_id, "now": clock.now()}
    with connection.cursor() as cursor:
        cursor.execute(_MARK_AGAIN, where)


def judge_due() -> int:
    """Judge the images that are due and whose facts are there; return how many. Safe to run twice and at once.

    Each image has its own transaction. An error is logged, stops no other image, and is tried again later.
    """
    due = IngestVerdict.objects.filter(due_at__lte=clock.now()).order_by("due_at", "pk")
    judged = 0
    for pk in list(due.values_list("pk", flat=True)[:_BATCH]):
        try:
            with transaction.atomic():
                rows = IngestVerdict.objects.select_for_update(of=("self",), skip_locked=True)
                row = rows.select_related("image", "repository__team").filter(pk=pk, due_at__isnull=False).first()
                judged += bool(row is not None and _judge(row))
        except Exception:
            log.exception("ingest_verdict_failed", verdict=pk)
            IngestVerdict.objects.filter(pk=pk).update(due_at=clock.now() + ASK_AGAIN_AFTER)
    return judged


def _judge(row: IngestVerdict) -> bool:
    member = RepositoryImage.objects.filter(
        image=row.image, repository=row.repository, is_top_level=True, removed_at=None
    ).select_related("pushed_by")
    held = member.first()
    if held is None or not row.image.is_content:  # it became the platform of an index, or was deleted
        row.delete()
        return False
    now = clock.now()
    can_wait = now - (row.marked_at or row.created_at) < WAITS_AT_MOST
    if can_wait and why_wait(row.image):
        return _put_off(row, now + AGAIN_AFTER)
    verdict = judge(row.image, row.repository, None, (Point.INGEST,))
    ask_where_due(verdict.judged, row.image, row.repository)
    if can_wait and lacks_answer(verdict.shown, row.repository):
        return _put_off(row, now + ASK_AGAIN_AFTER)
    before = {rule["rule"] for rule in row.failed}
    row.rules = [_as_json(item) for item in verdict.judged]
    row.revisions = [list(revision) for revision in verdict.effective.revisions]
    row.is_allowed, row.judged_at, row.due_at = verdict.is_allowed, now, None
    row.save()
    _tell(row, held, [rule for rule in row.failed if rule["rule"] not in before])
    return True


def _put_off(row: IngestVerdict, until: datetime) -> bool:
    row.due_at = until
    row.save(update_fields=["due_at"])
    return False


def _as_json(item: Judged) -> dict[str, Any]:
    return item.as_json() | {"is_open": item.outcome.is_open}


def why_wait(image: Image) -> str:
    """Return what the verdict about an image waits for, as the end of a sentence; "" for nothing."""
    tree = trees_of([image])[image.pk]
    ids = [pk for _, pk in tree.manifests]
    if Image.objects.filter(pk__in=ids, scanned_at=None, scan_problem="").exists():
        return "its packages are being listed"
    if matching_images(ids):
        return "its packages are being compared with advisories"
    if TrustCheck.objects.filter(image__in={image.pk, *ids}, is_due=True).exists():
        return "its signatures are being read"
    return ""


def _tell(row: IngestVerdict, held: RepositoryImage, failed: Iterable[dict[str, Any]]) -> None:
    """Record and tell what fails now and did not before. Each rule is told once for an image in a repository."""
    rules = list(failed)
    if not rules:
        return
    repository, image = row.repository, row.image
    reasons = "; ".join(f"{rule['title']}: {rule['summary']}" for rule in rules)
    details = IngestFailed(rules=tuple(rule["rule"] for rule in rules), is_allowed=bool(row.is_allowed))
    audit.record(
        Action.IMAGE_POLICY_FAILED, actor=system_user(), subject=image, team=repository.team, repository=repository,
        image=image, reason=reasons[:2000], details=details,
    )  # fmt: skip
    page = reverse("lifecycle:image", args=[repository.team.slug, repository.name, image.digest])
    keys = "+".join(sorted(rule["rule"] for rule in rules))
    count = f"{len(rules)} rule{'' if len(rules) == 1 else 's'}"
    what = Telling(
        FAILED,
        key=f"ingest-{row.pk}-{keys}"[:160],
        thread=f"image-{image.pk}",
        subject=f"{repository.name}@{image.digest[:19]} fails {count} at ingest",
        text=f"{'It only warns' if row.is_allowed else 'It is not allowed'}. {reasons}"[:4000],
        link=f"{page}?tab=policy",
        repository=repository,
        facts={"digest": image.digest, "allowed": "true" if row.is_allowed else "false", "rules": keys},
    )
    tell(what, _people(repository, held))


def _people(repository: Repository, held: RepositoryImage) -> set[int]:
    """Return who pushed it, and who can build images there or keeps the rules."""
    people = person_behind(held.pushed_by) if held.pushed_by is not None else set()
    for verb in (Verb.IMAGE_CREATE, Verb.POLICY_MANAGE):
        found = people_who(verb, team=repository.team, family=repository.family)
        people |= set(found.values_list("pk", flat=True))
    return people


def verdict_at_ingest(image: Image, repository: Repository) -> IngestVerdict | None:
    """Return what was stored about an image of a source repository; None when no rule set was there, or before this."""
    return IngestVerdict.objects.filter(image=image, repository=repository).first()
