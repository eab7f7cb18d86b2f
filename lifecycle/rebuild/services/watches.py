"""Watch base tags, and queue a plan when one of them moves."""

from __future__ import annotations

from django.db import transaction

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import TagDetails
from lifecycle.authority.access import lock_repository
from lifecycle.core.errors import NotFound
from lifecycle.core.types import parse_tag
from lifecycle.jobs import services as jobs
from lifecycle.rebuild.kinds import PLAN
from lifecycle.rebuild.models import UpstreamWatch
from lifecycle.registry.models import Tag


@transaction.atomic
def watch_base(repository_id: int, *, actor: User, tag: str = "latest") -> UpstreamWatch:
    """Plan a wave each time this tag moves. A second call returns the same watch. Raises NotFound, NotPermitted."""
    repository = lock_repository(actor, repository_id, Verb.IMAGE_REBUILD)
    row = Tag.objects.filter(repository=repository, name=parse_tag(tag)).select_related("image").first()
    watch, is_new = UpstreamWatch.objects.get_or_create(
        repository=repository,
        tag=tag,
        defaults={"created_by": actor, "last_digest": row.image.digest if row and row.image else ""},
    )
    if is_new:
        audit.record(
            Action.WATCH_ADDED, actor=actor, subject=watch, repository=repository, team=repository.team,
            details=TagDetails(tag=tag),
        )  # fmt: skip
    return watch


@transaction.atomic
def unwatch(repository_id: int, watch_id: int, *, actor: User) -> None:
    """Delete a watch; raises NotFound, NotPermitted."""
    repository = lock_repository(actor, repository_id, Verb.IMAGE_REBUILD)
    watch = UpstreamWatch.objects.filter(repository=repository, pk=watch_id).first()
    if watch is None:
        raise NotFound("Watch not found, or you don't have access.")
    audit.record(
        Action.WATCH_REMOVED, actor=actor, subject=watch, repository=repository, team=repository.team,
        details=TagDetails(tag=watch.tag),
    )  # fmt: skip
    watch.delete()


def queue_plans(repository_id: int, tag: str) -> None:
    """Queue a plan for every watch of this tag, in the caller's transaction."""
    for watch in UpstreamWatch.objects.filter(repository=repository_id, tag=tag):
        queue_plan(watch)


def queue_plan(watch: UpstreamWatch) -> None:
    """Queue a plan for one watch, in the caller's transaction."""
    jobs.queue(PLAN, subject_id=watch.pk, actor=system_user(), dedupe_key=f"watch:{watch.pk}")
