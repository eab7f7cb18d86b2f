"""The registry of job kinds. Each package registers its own kinds in its `kinds.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from accounts.models import User
from lifecycle.jobs.models import Job


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a job, in words. `page` is the URL name of its page, "" when the reader cannot open one."""

    words: str
    page: str = ""
    page_args: tuple[str | int, ...] = ()


# Takes jobs of one kind and the reader, and returns {job id: subject}. A job without an entry is shown by the id of its
# subject. The result has only names that the reader can see. An admin reads the whole audit log, and gets all names.
Subjects = Callable[[Sequence[Job], User], Mapping[int, Subject]]


def _no_subjects(jobs: Sequence[Job], reader: User) -> Mapping[int, Subject]:
    return {}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: its queue, its label, and the actions that users can take on it.

    Exactly one of `is_cancellable` and `why_not_cancelled` is set. `why_not_retried` is set when users retry the work
    elsewhere, and the sentence says where. `is_retried_forever` is set when nothing else requests the work again.
    The schedule then queues it again after each transient failure.
    """

    name: str  # stored in Job.kind
    queue: str  # a Celery queue, one of config.celery.QUEUES
    label: str
    subjects: Subjects = _no_subjects
    is_cancellable: bool = False
    why_not_cancelled: str = ""
    why_not_retried: str = ""
    is_retried_forever: bool = False

    def __post_init__(self) -> None:
        if self.is_cancellable == bool(self.why_not_cancelled):
            raise ValueError(f"{self.name}: set either is_cancellable or why_not_cancelled")


# Called in the transaction in which a job fails for good or is cancelled.
GaveUp = Callable[[Job], None]

WAKE_UP: Final = "gravingdock.run_job"  # the name of the one Celery task

_KINDS: Final[dict[str, Kind]] = {}
_GAVE_UP: Final[dict[str, GaveUp]] = {}


def register(kind: Kind) -> Kind:
    """Add a kind and return it; raises ValueError when the name is taken."""
    if kind.name in _KINDS:
        raise ValueError(f"Job kind {kind.name} is already registered")
    _KINDS[kind.name] = kind
    return kind


def kinds_in(queues: Collection[str]) -> list[str]:
    """Return the names of the kinds whose wake-ups are sent to these queues."""
    return [kind.name for kind in _KINDS.values() if kind.queue in queues]


def kind_called(name: str) -> Kind:
    """Return the kind with this name; raises KeyError."""
    return _KINDS[name]


def all_kinds() -> Collection[Kind]:
    """Return all registered kinds, in the usual order of work."""
    order = {queue: number for number, queue in enumerate(("ingest", "scan", "match", "rebuild", "promote", "notify"))}
    return sorted(_KINDS.values(), key=lambda kind: (order.get(kind.queue, len(order)), kind.name))


def names() -> list[str]:
    """Return the names of all kinds, as rows store them."""
    return [kind.name for kind in all_kinds()]


def on_give_up(kind: Kind, function: GaveUp) -> None:
    """Register `function(job)`, which runs when a job of this kind ends without success and stores the reason."""
    _GAVE_UP[kind.name] = function


def gave_up(job: Job) -> None:
    """Call the function that `on_give_up` registered for the job's kind, in the caller's transaction."""
    if (function := _GAVE_UP.get(job.kind)) is not None:
        function(job)
