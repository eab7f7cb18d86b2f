"""What stands in the way of the registry's collector, and the record that it ran."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import transaction

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import RegistryCollected, RegistryCollectionFailed
from lifecycle.core import clock
from lifecycle.core.reasons import Reason
from lifecycle.jobs.models import Job
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.retention.constants import RESTORABLE
from lifecycle.retention.models import RetentionEntry

_PROBLEM_MAX: Final = 1000  # characters
# Kinds of jobs that write to the managed registry: layers first, then the manifest that names them.
WRITING: Final = ("promote", "release", "rebuild", "withdraw", "restore", "retention", "delete", "ingest", "check")


def why_not_collect(*, lose_restorable: bool = False) -> Reason | None:
    """Return why the collector must not run now: a copy is in work, or deleted images can still be put back."""
    running = list(
        Job.objects.filter(state=Job.State.RUNNING, kind__in=WRITING).order_by("pk").values_list("kind", "pk")[:5]
    )
    if running:
        names = ", ".join(f"{kind} (job {pk})" for kind, pk in running)
        return Reason(f"Jobs write to the registry: {names}. Try again when they are done.")
    since = clock.now() - RESTORABLE
    restorable = RetentionEntry.objects.filter(
        state=RetentionEntry.State.DELETED, deleted_at__gt=since, plan__repository__registry__is_managed=True
    ) | RetentionEntry.objects.filter(state=RetentionEntry.State.DELETED, deleted_at__gt=since, plan__repository=None)
    if not lose_restorable and (count := restorable.count()):
        return Reason(
            f"{count} deleted images can still be restored, and not after a collection. Wait until their"
            f" {RESTORABLE.days} days are over, or use --lose-restorable."
        )
    return None


@transaction.atomic
def note_collected(*, actor: User, blobs: int, freed_bytes: int, stopped_s: float) -> None:
    """Record that the collector of the managed registry ran."""
    registry = ensure_managed_registry()
    audit.record(
        Action.REGISTRY_COLLECTED,
        actor=actor,
        subject=registry,
        details=RegistryCollected(
            registry=registry.host, blobs=blobs, freed_bytes=freed_bytes, seconds=round(stopped_s)
        ),
    )


@contextmanager
def failures_noted(*, actor: User) -> Iterator[None]:
    """Record why the collector did not end well, whatever it raises, and raise it again."""
    started = time.monotonic()
    try:
        yield
    except BaseException as error:  # also when somebody interrupts it: the registry was stopped
        _note_failure(actor, str(error) or type(error).__name__, time.monotonic() - started)
        raise


@transaction.atomic
def _note_failure(actor: User, problem: str, lasted_s: float) -> None:
    registry = ensure_managed_registry()
    details = RegistryCollectionFailed(registry=registry.host, problem=problem[:_PROBLEM_MAX], seconds=round(lasted_s))
    audit.record(Action.REGISTRY_COLLECTION_FAILED, actor=actor, subject=registry, details=details)
