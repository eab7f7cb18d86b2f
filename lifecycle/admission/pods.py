"""Judges the settings of a pod by the isolation checks that an environment enforces at admission. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lifecycle.admission.constants import LISTS, PLACEHOLDER, POD, SHOWN_IMAGES_MAX, TEMPLATES
from lifecycle.admission.types import Code, ImageResult, Review
from lifecycle.core.errors import Malformed
from lifecycle.policy.isolation import judge
from lifecycle.policy.isolation_types import ImageConfig, Kind, PodContext, Verdict

Facts = Callable[[str], ImageConfig | None]  # what is known of the image that a container names
_WORDS: Final = {Kind.INIT: "init container", Kind.MAIN: "container", Kind.EPHEMERAL: "ephemeral container"}
# What a template leaves out for a later hook says nothing yet: the Pods are judged with it.
_LATER: Final = ImageConfig("1000", (), exposes_ssh=False, has_healthcheck=True, has_setuid=False)
_Key = tuple[str, Kind, str, str]


def isolation_results(review: Review, modes: Mapping[str, str], facts: Facts) -> tuple[ImageResult, ...]:
    """Return why the settings of a pod do not let it start; none when all checks of `modes` are fine.

    What cannot be judged does not pass. A change that leaves spec and annotations alone is not judged, and a Pod that
    exists is not refused again for what it had before.
    """
    if not modes or not review.pod or _parts(review.pod) == _parts(review.old_pod):
        return ()
    try:
        found = _blocking(review, review.pod, modes, facts)
    except Malformed as error:
        return (ImageResult("pod", "isolation", "", Code.ISOLATION, error.message, "Correct the pod spec."),)
    if review.is_pod and review.old_pod:
        try:
            before = {_key(row) for row in _blocking(review, review.old_pod, modes, facts)}
        except Malformed:
            before = set()
        found = [row for row in found if _key(row) not in before]
    return tuple(_result(row) for row in found[:SHOWN_IMAGES_MAX])


def _parts(pod: Mapping[str, Any]) -> tuple[Any, Any]:
    return pod.get("spec"), _annotations(pod)


def _annotations(pod: Mapping[str, Any]) -> dict[str, Any]:
    metadata = pod.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _blocking(review: Review, pod: Mapping[str, Any], modes: Mapping[str, str], facts: Facts) -> list[Verdict]:
    spec = pod.get("spec")
    known = {}
    for text in set(_named(spec)):
        is_later = not review.is_pod and text in {"", PLACEHOLDER}
        found = _LATER if is_later else facts(text)
        if found is not None:
            known[text] = found
    path = () if review.is_pod else TEMPLATES.get((review.group, review.kind), POD)
    context = PodContext(review.namespace, _annotations(pod), None, "/" + "/".join((*path, "spec")))
    return [row for row in judge(spec, known, modes, context) if row.blocks]  # type: ignore[arg-type]  # it raises Malformed when this is no spec


def _named(spec: Any) -> Iterator[str]:
    for key, _ in LISTS:
        rows = spec.get(key) if isinstance(spec, dict) else None
        for row in rows if isinstance(rows, list) else ():
            image = row.get("image") if isinstance(row, dict) else None
            if image is None or isinstance(image, str):
                yield image or ""


def _key(verdict: Verdict) -> _Key:
    return verdict.check, verdict.kind, verdict.container, verdict.summary


def _result(verdict: Verdict) -> ImageResult:
    words = _WORDS.get(verdict.kind, "pod")
    where = f"{words} {verdict.container[:63]}" if verdict.container else words
    reason = f"{verdict.summary[:300]} ({verdict.pointer[:200]})"
    return ImageResult(where, verdict.check, "", Code.ISOLATION, reason, verdict.fix)
