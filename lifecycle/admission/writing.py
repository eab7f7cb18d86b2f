"""The process beside the servers: it writes the snapshot, judges rules, and loads decisions into the database."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Count, Exists, Min, OuterRef, Subquery

from lifecycle.admission import snapshot
from lifecycle.admission.loading import load_spool, prune
from lifecycle.admission.models import AdmissionEpoch, AdmissionVerdict
from lifecycle.admission.queries import epochs_since, ruled_environments, snapshot_of_one_moment
from lifecycle.admission.rotation import tend_certificates
from lifecycle.core import clock, locks
from lifecycle.core.errors import LifecycleError
from lifecycle.evidence.verdicts import judge
from lifecycle.policy.catalogue import ISOLATION
from lifecycle.policy.isolation_types import ImageConfig
from lifecycle.policy.rulesets import Mode, Point
from lifecycle.promotion.models import PromotionRequest

log = structlog.get_logger(__name__)

_LOOK_EVERY_S: Final = 0.25
_RENEW_EVERY_S: Final = 5.0
_ANEW_EVERY_S: Final = 300.0  # secrets end, and a change could have been missed
_FOLLOW_EVERY_S: Final = 0.5  # while rules are judged
_RETRY_AFTER_S: Final = 1.0  # when the snapshot could not be written
_LOAD_EVERY_S: Final = 1.0
_LOAD_FOR_S: Final = 0.5  # of one round; servers answer at most two seconds behind
_LOG_EVERY_S: Final = 30.0  # the same failure
_JUDGE_EVERY_S: Final = 1.0
_REPORT_EVERY_S: Final = 60.0
_TEND_EVERY_S: Final = 15.0  # also the longest wait between the last report of a bundle and its use
_PRUNE_EVERY_S: Final = 3600.0
_JUDGED_AT_ONCE: Final = 20  # verdicts of one round
_JUDGED_FOR: Final = timedelta(minutes=1)  # findings, waivers and signatures change without an event for each image
_SHARE_OF_OLDEST: Final = 4  # of a round, a quarter
_LATE_AFTER: Final = timedelta(minutes=10)
_EPOCHS_KEPT: Final = timedelta(minutes=10)
_NOT_JUDGED: Final = "The rules could not be judged; the log of the admission writer has the error."


class Writer:
    """Writes the snapshot of one folder while it has the lock of this machine and folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = _last_number(folder)
        self._seen: set[int] | None = None
        self._facts: dict[int, ImageConfig] = {}  # of images, for isolation checks
        self._facts_until = 0.0
        self._next: dict[str, float] = {}
        self._written_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Raises OperationalError or InterfaceError when the database is away.

        Returns at once when another process on this machine writes the same folder.
        """
        with locks.alone(f"admission:{socket.gethostname()}:{self.folder}") as is_alone:
            while is_alone and not stop.is_set():
                self.step()
                stop.wait(_LOOK_EVERY_S)

    def step(self) -> None:
        """Do what is due. The snapshot comes first, and again between slow things. Raises when the database is away."""
        self._attempt("snapshot", self._follow)
        if self._is_due("certificate", _TEND_EVERY_S):
            self._attempt("certificate", lambda: tend_certificates(self.folder, settings.ADMISSION_NAMES))
        if self._is_due("judge", _JUDGE_EVERY_S):
            self._attempt("rules", lambda: judge_due(between=self._follow_soon))
            self._attempt("snapshot", self._follow)
        if self._is_due("late", _REPORT_EVERY_S):
            self._attempt("late", report_late_verdicts)
        if self._is_due("load", _LOAD_EVERY_S):
            self._attempt("decisions", lambda: load_spool(self.folder, for_s=_LOAD_FOR_S))
        if self._is_due("prune", _PRUNE_EVERY_S):
            AdmissionEpoch.objects.filter(at__lt=clock.now() - _EPOCHS_KEPT).delete()
            self._attempt("prune", prune)

    def _attempt(self, what: str, work: Callable[[], object]) -> None:
        """Do one thing. What it raises stops no other thing, except when the database is away."""
        try:
            work()
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            if self._is_due(f"log {what}", _LOG_EVERY_S):
                log.exception("admission_writer_failed", what=what)

    def _follow(self) -> None:
        """Write the snapshot when something changed, or renew its time."""
        if not self._is_due("retry", 0):
            return
        new = epochs_since(self._seen or set())
        if self._seen is None or new - self._seen or self._is_due("anew", _ANEW_EVERY_S):
            self.write()
        elif self._is_due("renew", _RENEW_EVERY_S):
            self._renew()

    def _follow_soon(self) -> None:
        """Do so between two slow things, unless the snapshot was just written."""
        if time.monotonic() - self._written_at > _FOLLOW_EVERY_S:
            self._attempt("snapshot", self._follow)
            self._written_at = time.monotonic()

    def write(self) -> None:
        """Write a new snapshot."""
        started = time.monotonic()
        # Until it is written, nothing says that the file on the disk is still true, so that its time is not renewed.
        self._seen, self._next["retry"] = None, started + _RETRY_AFTER_S
        if started >= self._facts_until:  # files of images are checked again now and then
            self._facts, self._facts_until = {}, started + _ANEW_EVERY_S
        content, seen = snapshot_of_one_moment(self._number + 1, self._facts)
        snapshot.write(self.folder, content)
        self._seen, self._next["retry"] = seen, 0
        self._number += 1
        self._written_at = time.monotonic()
        self._next["anew"], self._next["renew"] = started + _ANEW_EVERY_S, started + _RENEW_EVERY_S
        log.info(
            "snapshot_written", number=self._number, size=len(content), seconds=round(time.monotonic() - started, 3)
        )

    def _renew(self) -> None:
        try:
            snapshot.renew(self.folder)
        except OSError:  # somebody removed it
            self.write()

    def _is_due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0):
            return False
        self._next[what] = now + every_s
        return True


def _last_number(folder: Path) -> int:
    try:
        return snapshot.Snapshot(folder / snapshot.NAME).number
    except (OSError, ValueError):
        return 0


def judge_due(limit: int = _JUDGED_AT_ONCE, between: Callable[[], None] = lambda: None) -> int:
    """Judge promoted images by the rules at admission, once per image and environment; return how many.

    New ones and marked ones come first. A quarter of the round is for those that were judged longest ago, so that a
    team with many new or marked ones does not keep the others waiting for ever. Calls `between` after each. An image
    whose rules cannot be judged does not pass, and stops no other.
    """
    ruled = ruled_environments()
    if not ruled:
        return 0
    verdicts = AdmissionVerdict.objects.filter(image=OuterRef("image"), environment=OuterRef("environment"))
    fresh = verdicts.filter(judged_at__gt=clock.now() - _JUDGED_FOR, is_due=False)
    succeeded = PromotionRequest.objects.filter(state="succeeded", environment__in=ruled)
    newer = succeeded.filter(image=OuterRef("image"), environment=OuterRef("environment"), pk__gt=OuterRef("pk"))
    waiting = (
        succeeded.filter(~Exists(fresh), ~Exists(newer))
        .select_related("image", "repository__team", "environment__team")
        .annotate(
            is_known=Exists(verdicts),
            was_due=Subquery(verdicts.values("is_due")[:1]),
            was_judged_at=Subquery(verdicts.values("judged_at")[:1]),
        )
    )
    oldest = list(waiting.filter(is_known=True).order_by("was_judged_at", "pk")[: max(limit // _SHARE_OF_OLDEST, 1)])
    first = waiting.exclude(pk__in=[row.pk for row in oldest]).order_by("is_known", "-was_due", "was_judged_at", "-pk")
    requests = [*oldest, *first[: limit - len(oldest)]]
    for request in requests:
        try:
            _judge(request)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # for example, the environment was just deleted
            log.exception("verdict_not_stored", image=request.image_id, environment=request.environment_id)
        between()
    return len(requests)


def report_late_verdicts() -> int:
    """Log how many verdicts of rules are older than they should be, if any; return how many. They go on counting."""
    succeeded = PromotionRequest.objects.filter(
        image=OuterRef("image"), environment=OuterRef("environment"), state="succeeded"
    )
    rows = AdmissionVerdict.objects.filter(Exists(succeeded), environment__in=ruled_environments())
    late = rows.filter(judged_at__lt=clock.now() - _LATE_AFTER).aggregate(number=Count("pk"), oldest=Min("judged_at"))
    if late["number"]:
        log.warning("verdicts_late", count=late["number"], oldest=late["oldest"].isoformat())
    return int(late["number"])


def _judge(request: PromotionRequest) -> None:
    try:
        verdict = judge(request.image, request.repository, request.environment, (Point.ADMISSION,))
        blocking = [
            item
            for item in verdict.judged
            if item.blocks and item.mode is Mode.ENFORCE and item.rule.kind != ISOLATION  # judged with the pod
        ]
        reason = f"{blocking[0].rule.words}: {blocking[0].outcome.summary}" if blocking else ""
    except LifecycleError as error:  # what cannot be judged does not pass
        reason = error.message or _NOT_JUDGED
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("verdict_failed", image=request.image_id, environment=request.environment_id)
        reason = _NOT_JUDGED
    with transaction.atomic():
        rows = AdmissionVerdict.objects.select_for_update()
        before = rows.filter(image=request.image, environment=request.environment).first()
        AdmissionVerdict.objects.update_or_create(
            image=request.image,
            environment=request.environment,
            defaults={"is_allowed": not reason, "reason": reason[:300], "judged_at": clock.now(), "is_due": False},
        )
        if before is None or (before.is_allowed, before.reason) != (not reason, reason[:300]):
            AdmissionEpoch.objects.create()
