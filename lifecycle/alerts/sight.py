"""What of an alert may be shown, in one place. Lists, pages, the API and notices show nothing of its place but this.

An alert about a workload has two sides. The teams of its cluster and of the environment that its namespace is bound to
see the place: cluster, namespace, workload and evidence. The team of the image sees the kind, the digest, the rule and
the severity. Nobody else sees the alert (queries.alerts_visible_to).

Whose image it is, is no secret between these two; that an image exists is one to everybody else. So `runtime` raises an
alert about an image that neither the cluster's nor the environment's team has in two: for its own team, and for them,
in which it is an unknown image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.alerts.models import Alert

ELSEWHERE: Final = "It runs in a cluster of another team, which you cannot see."
_NEVER: Final = "waiting"  # counts images of others


@dataclass(frozen=True, slots=True)
class Shown:
    """An alert as a reader may see it."""

    cluster: str | None  # its name; "" for one that the reader cannot see, None for an alert about no workload
    namespace: str
    workload: str
    evidence: Mapping[str, Any]
    about: str  # the vulnerability, or the rule and the place; "" when only the digest says it

    @property
    def place(self) -> str:
        """`prod/Deployment/api`, without what is not known."""
        return "/".join(part for part in (self.namespace, self.workload) if part)


def shown(alert: Alert) -> Shown:
    """Return a row of `alerts_visible_to` as its reader may see it."""
    return _shown(alert, is_place_seen=alert.is_place_seen)


def shown_to_team(alert: Alert) -> Shown:
    """Return an alert as everybody in its team may see it, such as in a notice."""
    if alert.cluster is None:
        return _shown(alert, is_place_seen=True)
    at = {alert.cluster.team_id} | ({alert.environment.team_id} if alert.environment is not None else set())
    return _shown(alert, is_place_seen=alert.team_id in at)


def _shown(alert: Alert, *, is_place_seen: bool) -> Shown:
    if alert.cluster is None:
        evidence = {name: value for name, value in alert.evidence.items() if name != _NEVER}
        return Shown(None, "", "", evidence, alert.vulnerability or alert.rule)
    if not is_place_seen:
        return Shown("", "", "", {"why": ELSEWHERE}, alert.rule)
    place = "/".join(part for part in (alert.namespace, alert.workload) if part)
    about = " in ".join(part for part in (alert.rule, place) if part)
    return Shown(alert.cluster.slug, alert.namespace, alert.workload, alert.evidence, alert.vulnerability or about)
