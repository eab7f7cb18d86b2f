"""Kinds of jobs: each package describes its own in its `kinds.py`; this package lists none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from accounts.models import User
from lifecycle.jobs.models import Job


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job is about, in words. `page` names the URL pattern of its page, "" where the reader has none."""

    words: str
    page: str = ""
    page_args: tuple[str | int, ...] = ()


# Given jobs of one kind and the reader, returns {job id: subject}. A job that is left out is shown by its number. The
# reader learns only names that the reader may see; an admin, who reads the whole audit log, learns every name.
Subjects = Callable[[Sequence[Job], User], Mapping[int, Subject]]


def _no_subjects(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    return {}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: where it waits, what people call it, and what people may do to it.

    Exactly one of `is_cancellable` and `why_not_cancelled` is set. With `why_not_retried`, something else retries the
    work, and the sentence says what. `is_retried_forever`: nothing else would ask for the work again, so the schedule
    queues it again after each failure that time can heal.
    """

    name: str  # stored in the row
    queue: str  # of Celery, one of config.celery.QUEUES
    label: str
    subjects: Subjects = _no_subjects
    is_cancellable: bool = False
    why_not_cancelled: str = ""
    why_not_retried: str = ""
    is_retried_forever: bool = False

    def __post_init__(self) -> None:
        if self.is_cancellable == bool(self.why_not_cancelled):
            raise ValueError(f"{self.name}: say either that it is cancellable, or why not")


# Called in the transaction in which a job fails for good or is cancelled.
GaveUp = Callable[[Job], None]

WAKE_UP: Final = "gravingdock.run_job"  # the name of the one Celery task

_KINDS: Final[dict[str, Kind]] = {}
_GAVE_UP: Final[dict[str, GaveUp]] = {}


def register(kind: Kind) -> Kind:
    """Add a kind and return it; raises ValueError when the name is taken."""
    if kind.name in _KINDS:
        raise ValueError(f"There is a kind of job called {kind.name} already")
    _KINDS[kind.name] = kind
    return kind


def kinds_in(queues: Collection[str]) -> list[str]:
    """Return the names of the kinds whose wake-ups go to these queues."""
    return [kind.name for kind in _KINDS.values() if kind.queue in queues]


def kind_called(name: str) -> Kind:
    """Return the kind by its name; raises KeyError."""
    return _KINDS[name]


def all_kinds() -> Collection[Kind]:
    """Return every registered kind, in the order in which work usually happens."""
    order = {queue: number for number, queue in enumerate(("ingest", "scan", "match", "rebuild", "promote"))}
    return sorted(_KINDS.values(), key=lambda kind: (order.get(kind.queue, len(order)), kind.name))


def names() -> list[str]:
    """Return the names of all kinds, as rows store them."""
    return [kind.name for kind in all_kinds()]


def on_give_up(kind: Kind, function: GaveUp) -> None:
    """Let `function(job)` run when a job of this kind ends without success, so that its subject learns why."""
    _GAVE_UP[kind.name] = function


def gave_up(job: Job) -> None:
    """Call what `on_give_up` registered for the job's kind, inside the caller's transaction."""
    if (function := _GAVE_UP.get(job.kind)) is not None:
        function(job)
