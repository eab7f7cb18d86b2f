"""The registry of alert kinds, and what raises an alert. Each package registers the kinds that it raises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lifecycle.core.severities import UNKNOWN
from lifecycle.notices import topics
from lifecycle.notices.topics import Topic


@dataclass(frozen=True, slots=True)
class Cause:
    """What raises an alert: one per kind, team, and vulnerability or other subject."""

    kind: str
    team_id: int
    vulnerability: str = ""
    digest: str | None = None
    rule: str = ""  # what else makes it another alert
    cluster_id: int | None = None
    namespace: str = ""
    workload: str = ""
    environment_id: int | None = None  # to which the namespace is bound: its team sees the place too
    severity: str = UNKNOWN
    images: int = 0  # in use and affected, of the team
    repositories: Mapping[int, int] = field(default_factory=dict)  # {repository id: images there}
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The same for the same alert: one can be live."""
        parts = [self.kind, str(self.team_id), self.vulnerability, self.digest or "", self.rule]
        if self.cluster_id is not None:
            parts += [str(self.cluster_id), self.namespace, self.workload]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class AlertKind:
    """One kind of alert. Its topic has the same name, so that people choose how they are told about it.

    `causes_now` gets alerts of the kind, and returns {alert id: its cause as it is now} for each that still has one.
    """

    name: str  # stored, and in the API: finding.new
    label: str
    words: str  # when it is raised
    causes_now: Callable[[Sequence[Any]], Mapping[int, Cause]]
    topic: Topic
    why_not_resolved: str = ""  # why nobody can resolve it by hand, and what closes it; "": people can


_KINDS: Final[dict[str, AlertKind]] = {}


def register(
    name: str,
    label: str,
    words: str,
    *,
    causes_now: Callable[[Sequence[Any]], Mapping[int, Cause]],
    why_not_resolved: str = "",
) -> AlertKind:
    """Add a kind of alert with its topic, and return it; raises ValueError when the name is taken."""
    kind = AlertKind(
        name, label, words, causes_now, topics.register(Topic(name, label, words)), why_not_resolved
    )  # fmt: skip
    _KINDS[name] = kind
    return kind


def all_kinds() -> Collection[AlertKind]:
    """Return all kinds, in the order of their registration."""
    return _KINDS.values()


def kind_called(name: str) -> AlertKind | None:
    """Return the kind with this name; None for one of an earlier release."""
    return _KINDS.get(name)


def label_of(name: str) -> str:
    """Return the label of a stored kind."""
    kind = _KINDS.get(name)
    return kind.label if kind is not None else name
