"""What reports and events say, as frozen types."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from lifecycle.core.errors import Conflict, LifecycleError

MIB: Final = 1024 * 1024
REPORT_MAX_BYTES: Final = 32 * MIB  # inflated
CONTAINERS_MAX: Final = 50_000  # in one report
REFUSED_MAX: Final = 100  # refused entries that a report keeps; the rest is a number


class Sent(StrEnum):
    """What a report says: everything, what changed, or only that the reporter lives."""

    FULL = "full"
    DELTA = "delta"
    HEARTBEAT = "heartbeat"


class ReportOutOfOrder(Conflict):
    """A newer report of this reporter is already here."""

    code = "report_out_of_order"


class ReportGap(Conflict):
    """A report before this one is missing, or none since the reporter started was full. Send a full report."""

    code = "report_gap"


class EventsWaiting(LifecycleError):
    """Too many events of one cluster wait to be folded into alerts. Send again later."""

    code = "events_waiting"
    http_status = 503


class ReportsWaiting(LifecycleError):
    """Too many reports of one reporter wait to be applied. Send again later."""

    code = "reports_waiting"
    http_status = 429


@dataclass(frozen=True, slots=True)
class Header:
    """The envelope of a report, without its containers."""

    report_id: str
    boot: str
    sequence: int
    kind: Sent
    observed_at: datetime
    reporter: str
    bundle_sha256: str | None = None  # of what the webhooks trust; "": not all the same; None: not said


@dataclass(frozen=True, slots=True)
class SeenContainer:
    """One container as a reporter sees it. `digests` name its image: of an index, a manifest or a configuration."""

    key: str  # of the reporter: pod uid / kind / name
    namespace: str
    workload_kind: str
    workload_name: str
    pod: str
    node: str
    arch: str
    kind: str  # init, main, ephemeral, volume
    name: str
    image: str  # as the pod's author wrote it
    digests: tuple[str, ...]  # empty: not resolved
    container_id: str
    state: str  # waiting, running, terminated
    started_at: datetime | None
    spec: str  # sha256 of the skeleton of its pod; "" without one


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that was not taken, with its place in the document as a JSON pointer (RFC 6901)."""

    pointer: str
    why: str


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a report. What could not be read is in `refused`."""

    containers: list[SeenContainer]
    gone: list[str] = field(default_factory=list)
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    namespaces: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    templates: dict[tuple[str, str, str], str] | None = None  # (namespace, kind, name) -> sha256; None: not said


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """One event about something that runs, from Falco or as a CloudEvent. Secrets are masked."""

    kind: str  # falco, event
    rule: str
    severity: str
    at: datetime | None  # when it happened, as it says; None: it does not say
    text: str
    fields: dict[str, Any]
    event_id: str = ""  # of the sender; the same id again is the same event
    digest: str = ""
    container_id: str = ""  # the first 12 hex digits
    namespace: str = ""
    pod: str = ""
    image: str = ""  # repository:tag: a weak tie
    target: str = ""  # what an audit event of Kubernetes is about
