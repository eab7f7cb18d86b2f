"""Isolation of what runs: the pod specs that reporters sent, judged by the isolation checks of their environment.

The mode of each check is that of point `admission`. A check that warns or enforces raises an alert; `off` and `observe`
raise none. Only what fails counts: what cannot be known from a report is no alarm.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from django.db import connection

from lifecycle.admission.manifest import EXCLUDED
from lifecycle.clusters.models import NamespaceBinding
from lifecycle.clusters.queries import binding_for
from lifecycle.core.errors import Malformed
from lifecycle.evidence.isolation import image_configs, worst
from lifecycle.inventory.models import ClusterNamespace, PodSpec, RunningImage
from lifecycle.policy.isolation import CHECKS, IMAGE_CHECKS, judge
from lifecycle.policy.isolation_types import ImageConfig, Kind, PodContext, Profile, Result, Verdict
from lifecycle.policy.rulesets import DECIDES, Point, Rule, isolation_modes
from lifecycle.registry.models import Image
from lifecycle.runtime.bypass import Key

KIND: Final = "isolation"
_SPECS_AT_ONCE: Final = 500
_JUDGED_KEPT: Final = 20_000  # pod specs; the pods of a workload share one
_IMAGES_KEPT: Final = 20_000
_WORDS: Final = {Kind.INIT: "init container", Kind.MAIN: "container", Kind.EPHEMERAL: "ephemeral container"}
_SHOWN_MAX: Final = 5  # failures of one check that its alert shows
_TEXT_MAX: Final = 300

# One row for each pod spec and container that live in these namespaces; replicas with the same spec are one.
_LIVE: Final = """
SELECT DISTINCT c.cluster_id, c.namespace, c.workload_kind, c.workload_name, spec.id, c.kind, c.name, c.reference,
       c.digest, coalesce(c.platform_id, c.image_id)
FROM lifecycle_runningcontainer c
JOIN unnest(%s::bigint[], %s::text[]) AS bound(cluster_id, namespace)
    ON bound.cluster_id = c.cluster_id AND bound.namespace = c.namespace
JOIN lifecycle_podspec spec ON spec.cluster_id = c.cluster_id AND spec.sha256 = c.spec
WHERE c.until IS NULL AND c.spec <> ''
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """One check that a running image, or the pod around it, fails."""

    check: str
    mode: str  # warn or enforce
    breaks_baseline: bool  # of the Pod Security Standards
    why: str  # sentences, with the containers
    fix: str


@dataclass(frozen=True, slots=True)
class _Part:
    """A container of a pod, as reported."""

    kind: str
    name: str
    reference: str
    digest: str
    image_id: int | None


Name = TypeVar("Name")
Value = TypeVar("Value")


class _Kept(Generic[Name, Value]):
    """The last values that were worked out, at most so many. For one process; a lost value is worked out again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: OrderedDict[Name, Value] = OrderedDict()

    def get(self, name: Name) -> Value | None:
        if name in self._rows:
            self._rows.move_to_end(name)
        return self._rows.get(name)

    def put(self, name: Name, value: Value) -> None:
        self._rows[name] = value
        while len(self._rows) > self._limit:
            self._rows.popitem(last=False)


_Facts = tuple[tuple[str, ImageConfig], ...]
# Spec, modes, namespace, whether it has a network policy (None: nobody knows), and facts of images by reference.
_Asked = tuple[int, tuple[tuple[str, str], ...], str, bool | None, _Facts]
_Judged = tuple[tuple[Verdict, ...], str]  # what fails, and the name of the first main container
_judged: Final[_Kept[_Asked, _Judged]] = _Kept(_JUDGED_KEPT)
_known: Final[_Kept[int, ImageConfig]] = _Kept(_IMAGES_KEPT)


def found(
    rows: Sequence[RunningImage],
    bindings: Mapping[int, Sequence[NamespaceBinding]],
    rules: Mapping[int, Iterable[Rule]],
) -> dict[Key, list[Failure]]:
    """Return what fails, by cluster, namespace, workload and digest. `rules` are those of environments, by id.

    A failure of the whole pod is one of its first main container. A fixed number of queries, and those of new specs.
    """
    modes = _modes_in(rows, bindings, rules)
    if not modes:
        return {}
    pods: dict[tuple[int, str, str, str, int], list[_Part]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_LIVE, [[cluster for cluster, _ in modes], [namespace for _, namespace in modes]])
        for *pod, kind, name, reference, digest, image_id in cursor.fetchall():
            pods[tuple(pod)].append(_Part(kind, name, reference, digest, image_id))
    with_images = [pod for pod in pods if set(IMAGE_CHECKS) & modes[pod[0], pod[1]].keys()]
    images = _images({part.image_id for pod in with_images for part in pods[pod] if part.image_id is not None})
    policies = _network_policies(modes)
    wanted = []
    for pod, parts in pods.items():
        place = (pod[0], pod[1])
        facts = _facts(parts, images) if pod in with_images else ()
        wanted.append((pod, parts, (pod[4], tuple(modes[place].items()), pod[1], policies.get(place), facts)))
    verdicts = _verdicts([key for _, _, key in wanted])
    failures: dict[Key, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    for pod, parts, key in wanted:
        for verdict, digest in _placed(*verdicts[key], parts):
            failures[(*pod[:4], digest)][verdict.check].append(verdict)
    return {
        key: [_failure(check, listed, modes[key[0], key[1]][check]) for check, listed in sorted(checks.items())]
        for key, checks in failures.items()
    }


def _modes_in(
    rows: Sequence[RunningImage],
    bindings: Mapping[int, Sequence[NamespaceBinding]],
    rules: Mapping[int, Iterable[Rule]],
) -> dict[tuple[int, str], dict[str, str]]:
    """Return {(cluster, namespace): {check: mode}} of the checks that warn or enforce there."""
    places = {}
    for cluster_id, namespace in {(row.cluster_id, row.namespace) for row in rows}:
        binding = binding_for(bindings[cluster_id], namespace)
        if binding is not None and namespace not in EXCLUDED:
            places[cluster_id, namespace] = binding.environment_id
    of = {
        pk: {check: mode for check, mode in isolation_modes(each, Point.ADMISSION).items() if mode in DECIDES}
        for pk, each in rules.items()
    }
    return {place: of[environment_id] for place, environment_id in places.items() if of[environment_id]}


def _network_policies(places: Iterable[tuple[int, str]]) -> dict[tuple[int, str], bool | None]:
    """Return False where a namespace has no network policy. Whether one of several selects a pod, no report says."""
    rows = ClusterNamespace.objects.filter(cluster__in={cluster for cluster, _ in places}, network_policies=0)
    return dict.fromkeys(rows.values_list("cluster", "name"), False)


def _images(ids: set[int]) -> dict[int, ImageConfig]:
    """Return what is known of these images. What is fully known does not change: a digest never does."""
    kept = {pk: facts for pk in ids if (facts := _known.get(pk)) is not None}
    new = image_configs(Image.objects.filter(pk__in=ids - kept.keys()).only("pk", "kind")) if ids - kept.keys() else {}
    for pk, facts in new.items():
        if facts.user is not None and facts.has_setuid is not None:
            _known.put(pk, facts)
    return kept | new


def _facts(parts: Sequence[_Part], images: Mapping[int, ImageConfig]) -> _Facts:
    """Return what is known of the image that each reference names; of the worst, where one names several."""
    named: dict[str, dict[int | None, ImageConfig]] = defaultdict(dict)
    for part in parts:
        facts = images.get(part.image_id) if part.image_id is not None else None
        named[part.reference][part.image_id] = facts or ImageConfig()
    return tuple((reference, worst(of.values())) for reference, of in sorted(named.items()))


def _verdicts(keys: Sequence[_Asked]) -> dict[_Asked, _Judged]:
    results = {key: kept for key in keys if (kept := _judged.get(key)) is not None}
    new = [key for key in dict.fromkeys(keys) if key not in results]
    for start in range(0, len(new), _SPECS_AT_ONCE):
        batch = new[start : start + _SPECS_AT_ONCE]
        specs = dict(PodSpec.objects.filter(pk__in={key[0] for key in batch}).values_list("pk", "spec"))
        for key in batch:
            results[key] = _failed(specs.get(key[0]), key)
            _judged.put(key, results[key])
    return results


def _failed(spec: Any, key: _Asked) -> _Judged:
    _, modes, namespace, has_network_policy, facts = key
    stated = spec.get("annotations") if isinstance(spec, dict) else None  # those of the pod, as reporters send them
    annotations = stated if isinstance(stated, dict) else {}
    try:
        verdicts = judge(spec, dict(facts), dict(modes), PodContext(namespace, annotations, has_network_policy))
    except Malformed:  # a reporter sent it: there is nothing to judge
        return (), ""
    failed = tuple(verdict for verdict in verdicts if verdict.result is Result.FAIL)
    return failed, str(spec["containers"][0].get("name") or "")


def _placed(verdicts: Iterable[Verdict], first: str, parts: Sequence[_Part]) -> Iterator[tuple[Verdict, str]]:
    """Yield each failure with the digests that it is about: of its container, else of the first main container."""
    by_container: dict[tuple[str, str], set[str]] = defaultdict(set)
    for part in parts:
        by_container[part.kind, part.name].add(part.digest)
    others = by_container.get((Kind.MAIN, first)) or {min(part.digest for part in parts)}
    for verdict in verdicts:
        for digest in sorted(by_container.get((verdict.kind, verdict.container)) or others):
            yield verdict, digest


def _failure(check: str, verdicts: Sequence[Verdict], mode: str) -> Failure:
    sentences = dict.fromkeys(_sentence(verdict) for verdict in verdicts)
    why = " ".join(list(sentences)[:_SHOWN_MAX])
    if len(sentences) > _SHOWN_MAX:
        why += f" And {len(sentences) - _SHOWN_MAX} more."
    breaks = any(verdict.profile is Profile.BASELINE for verdict in verdicts)
    return Failure(check, mode, breaks, f"{CHECKS[check].title}: {why}", CHECKS[check].fix)


def _sentence(verdict: Verdict) -> str:
    summary = verdict.summary[:_TEXT_MAX]
    return f"{_WORDS[verdict.kind]} {verdict.container[:63]}: {summary}" if verdict.kind in _WORDS else summary
