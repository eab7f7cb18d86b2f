"""Reads AdmissionReview documents: new images, who asks, and for which workload. Every part can be hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from lifecycle.admission.constants import (
    ANNOTATION,
    DEPTH_MAX,
    GROUPS_MAX,
    IMAGES_MAX,
    LISTS,
    PLACEHOLDER,
    POD,
    REFERENCE_MAX,
    TEMPLATES,
    TEXT_MAX,
    UID_MAX,
)
from lifecycle.admission.types import BadReview, Named, Review

_JUDGED_OPERATIONS: Final = frozenset({"CREATE", "UPDATE"})
# Subresources whose object is a Pod; no other one can change an image.
_POD_SUBRESOURCES: Final = frozenset({"", "ephemeralcontainers", "resize"})
_OF_CRON_JOB: Final = re.compile(r"(.+)-[0-9]{8}")  # the CronJob controller appends the minute
_UNREADABLE: Final = "\0"  # stands for a reference that is no text; never a valid one


def parse_review(body: bytes) -> Review:
    """Return what an API server asks. Raises BadReview for anything but an AdmissionReview of v1 with a uid."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadReview("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise BadReview("The body is not an AdmissionReview.")
    # Few brackets cannot be deep; brackets in texts count too, which only costs the walk.
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX and _is_deep(document):
        raise BadReview(f"The body is nested more than {DEPTH_MAX} levels deep.")
    if document.get("kind") != "AdmissionReview" or document.get("apiVersion") != "admission.k8s.io/v1":
        raise BadReview("Send an AdmissionReview of admission.k8s.io/v1.")
    request = document.get("request")
    uid = request.get("uid") if isinstance(request, dict) else None
    if not isinstance(request, dict) or not isinstance(uid, str) or not uid or len(uid) > UID_MAX:
        raise BadReview("The request has no uid.")
    return read_request(request)


def read_request(request: Mapping[str, Any]) -> Review:
    """Return what the `request` of a review asks. What is missing or of another type is empty."""
    kind = _map(request.get("kind"))
    group_kind = (_text(kind.get("group")), _text(kind.get("kind")))
    operation, user = _text(request.get("operation")), _map(request.get("userInfo"))
    given = _map(request.get("object"))
    old = _map(request.get("oldObject")) if operation == "UPDATE" else {}
    template, old_template = _template(group_kind, given), _template(group_kind, old)
    is_judged = operation in _JUDGED_OPERATIONS and _text(request.get("subResource")) in _POD_SUBRESOURCES
    groups = user.get("groups")
    metadata = _map(given.get("metadata"))
    return Review(
        uid=_text(request.get("uid")),
        operation=operation,
        group=group_kind[0],
        kind=group_kind[1],
        namespace=_text(request.get("namespace")),
        name=_text(request.get("name")) or _text(metadata.get("name")) or _text(metadata.get("generateName")),
        user=_text(user.get("username")),
        groups=frozenset(
            name for name in (groups[:GROUPS_MAX] if isinstance(groups, list) else ()) if isinstance(name, str)
        ),
        is_dry_run=request.get("dryRun") is True,
        is_judged=is_judged,
        is_pod=group_kind == POD,
        images=_new_images(template, old_template, group_kind) if is_judged else (),
        kept=_kept_images(template, old_template, group_kind) if is_judged else (),
        annotation=_annotation(template),
        old_annotation=_annotation(old_template),
        has_controller=_controller(metadata) is not None,
        owner=_controller(metadata) or ("", ""),
        workload=_workload(group_kind[1], metadata, _text(request.get("name"))),
        pod={} if template is None or _has_too_many(template) else template,
        old_pod={} if old_template is None or _has_too_many(old_template) else old_template,
    )


def review_of_object(given: Mapping[str, Any], namespace: str, user: str = "") -> Review:
    """Return the review that creating an object would ask for; raises BadReview for a kind without images."""
    group = _text(given.get("apiVersion")).rpartition("/")[0]
    kind = (group, _text(given.get("kind")))
    if kind != POD and kind not in TEMPLATES:
        raise BadReview(f"Objects of kind {kind[1][:60] or 'unknown'} run no images.")
    return read_request(
        {
            "operation": "CREATE", "kind": {"group": kind[0], "kind": kind[1]}, "object": given,
            "namespace": namespace, "userInfo": {"username": user}, "dryRun": True,
        }
    )  # fmt: skip


def images_of_spec(spec: Mapping[str, Any]) -> tuple[Named, ...]:
    """Return the images of the pod spec of a template, without those that it leaves to a later hook."""
    return tuple(image for image in _images(spec, "") if image.reference not in {"", PLACEHOLDER})


def _is_deep(document: Any) -> bool:
    level: list[Any] = [document]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for item in level:
            inner = item.values() if isinstance(item, dict) else item
            below += [value for value in inner if isinstance(value, (dict, list))]
        if not below:
            return False
        level = below
    return True


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any, limit: int = TEXT_MAX) -> str:
    return value[:limit] if isinstance(value, str) else ""


def _template(kind: tuple[str, str], given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the Pod, or the pod template of a controller; None when there is none."""
    if kind == POD:
        return dict(given) if isinstance(given.get("spec"), dict) else None
    path = TEMPLATES.get(kind)
    if path is None:
        return None
    inner: Any = given
    for key in path:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) and isinstance(inner.get("spec"), dict) else None


def _new_images(
    template: Mapping[str, Any] | None, old: Mapping[str, Any] | None, kind: tuple[str, str]
) -> tuple[Named, ...] | None:
    if template is None or _has_too_many(template):
        return None
    before = _references(old)
    return tuple(image for image in _all_images(template, kind) if image.reference not in before)


def _kept_images(
    template: Mapping[str, Any] | None, old: Mapping[str, Any] | None, kind: tuple[str, str]
) -> tuple[Named, ...]:
    """Return what an object with a break-glass annotation had before: it is opened too when the annotation comes in."""
    if template is None or old is None or not _annotation(template) or _has_too_many(template):
        return ()
    before = _references(old)
    return tuple(image for image in _all_images(template, kind) if image.reference in before)


def _references(template: Mapping[str, Any] | None) -> frozenset[str]:
    if not template or _has_too_many(template):
        return frozenset()
    return frozenset(image.reference for image in _images(template["spec"], ""))


def _all_images(template: Mapping[str, Any], kind: tuple[str, str]) -> Iterator[Named]:
    prefix = "" if kind == POD else "/" + "/".join(TEMPLATES[kind])
    for image in _images(template["spec"], prefix):
        if kind == POD or image.reference not in {"", PLACEHOLDER}:  # a template leaves it to a later hook; Pods cannot
            yield image


def _has_too_many(template: Mapping[str, Any]) -> bool:
    """Return whether a template names more images than anybody runs: each costs time and memory."""
    spec = template["spec"]
    lists = [spec.get(key) for key in (*(key for key, _ in LISTS), "volumes")]
    return sum(len(rows) for rows in lists if isinstance(rows, list)) > IMAGES_MAX


def _images(spec: Mapping[str, Any], prefix: str) -> Iterator[Named]:
    """Yield every image of a pod spec. A container without a readable one has the reference _UNREADABLE."""
    for key, words in LISTS:
        rows = spec.get(key)
        if rows is None:
            continue
        if not isinstance(rows, list):
            yield Named(f"{words}s", _UNREADABLE)
            continue
        for index, given in enumerate(rows):
            row = _map(given)
            yield Named(
                f"{words} {_text(row.get('name'), 63) or index}",
                _reference(row.get("image", "") if row else None),
                f"{prefix}/spec/{key}/{index}/image",
            )
    volumes = spec.get("volumes")
    for index, row in enumerate(volumes if isinstance(volumes, list) else ()):
        image = _map(row).get("image")
        if image is not None:
            yield Named(
                f"volume {_text(_map(row).get('name'), 63) or index}",
                _reference(_map(image).get("reference", "") if isinstance(image, dict) else None),
                f"{prefix}/spec/volumes/{index}/image/reference",
            )


def _reference(value: Any) -> str:
    return value[: REFERENCE_MAX + 1] if isinstance(value, str) else "" if value == "" else _UNREADABLE


def _annotation(template: Mapping[str, Any] | None) -> str:
    annotations = _map(_map((template or {}).get("metadata")).get("annotations"))
    return _text(annotations.get(ANNOTATION), 1000)


def _controller(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    owners = metadata.get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, dict) and owner.get("controller") is True:
            return _text(owner.get("kind")), _text(owner.get("name"))
    return None


def _workload(kind: str, metadata: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return kind and name of what people deploy: the Deployment of a ReplicaSet's Pod, the CronJob of a Job's."""
    owner = _controller(metadata)
    if owner is None:
        return kind, name or _text(metadata.get("name")) or _text(metadata.get("generateName"))
    if owner[0] == "ReplicaSet":
        template_hash = _text(_map(metadata.get("labels")).get("pod-template-hash"))
        if template_hash and owner[1].endswith(f"-{template_hash}"):
            return "Deployment", owner[1][: -len(template_hash) - 1]
    if owner[0] == "Job" and (cron := _OF_CRON_JOB.fullmatch(owner[1])):
        return "CronJob", cron[1]
    return owner
