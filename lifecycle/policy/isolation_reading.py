"""From manifests to pods: YAML or JSON texts, controller objects, lists, and the NetworkPolicies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from lifecycle.cli import yaml_texts
from lifecycle.core.errors import Malformed
from lifecycle.policy.isolation_types import Fields, PodContext

TEXT_MAX: Final = 1024 * 1024  # characters
DOCUMENTS_MAX: Final = 200
NODES_MAX: Final = 200_000  # with aliases written out, so that a small text cannot stand for a huge object
DEPTH_MAX: Final = 64
MERGES_MAX: Final = 50
_TEMPLATE: Final = ("spec", "template")
# Where each kind has its pod. Other kinds with /spec/template/spec/containers count too, such as a Rollout.
_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}


@dataclass(frozen=True, slots=True)
class PodDocument:
    """A pod, or the pod that a controller makes, and where it was."""

    document: int  # position in the text, from 1
    kind: str  # Pod, Deployment ...; PodSpec for a bare pod spec
    name: str
    spec: Fields
    context: PodContext
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a text has: its pods, and how many documents are about something else."""

    pods: tuple[PodDocument, ...]
    others: int = 0


def documents_of(text: str) -> list[Any]:
    """Return the documents of a YAML or JSON text, without empty ones. Raises Malformed with the line."""
    if len(text) > TEXT_MAX:
        raise Malformed(f"The text is larger than {TEXT_MAX // 1024} KiB. Check fewer objects at a time.")
    found = []
    try:
        _measure_text(text)
        for document in yaml_texts.load_all(text):
            if document is not None:
                found.append(document)
            if len(found) > DOCUMENTS_MAX:
                raise Malformed(f"There are more than {DOCUMENTS_MAX} documents. Check fewer at a time.")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        words = str(getattr(error, "problem", None) or "it cannot be read").strip()[:200]
        raise Malformed(f"This is no YAML or JSON{where}: {words}.") from None
    return found


def _measure_text(text: str) -> None:
    """Refuse deep texts before they are loaded: the loader recurses in C, and copies merged keys, without a limit."""
    depth = merges = 0
    is_merge = False
    for count, event in enumerate(yaml_texts.events_of(text)):
        if is_merge and isinstance(event, yaml.SequenceStartEvent):
            raise Malformed("A merge key (<<) takes one alias here, not a list.")
        is_merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<"
        merges += is_merge
        if merges > MERGES_MAX:
            raise Malformed(f"There are more than {MERGES_MAX} merge keys (<<).")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > DEPTH_MAX:
            raise Malformed(f"An object is nested deeper than {DEPTH_MAX} levels.")
        if count > 2 * NODES_MAX:
            raise Malformed(f"The objects have more than {NODES_MAX} values.")


def manifests_of(documents: Iterable[Any]) -> Manifests:
    """Return the pods in these objects: Pods, controllers, Lists, or bare pod specs. Raises Malformed."""
    budget = [NODES_MAX]
    objects: list[tuple[int, str, Fields]] = []
    for position, document in enumerate(documents, start=1):
        _measure(document, budget, 0)
        if not isinstance(document, Mapping):
            raise Malformed(f"Document {position} is no object. Expected a Pod, a Deployment or the like.")
        objects += [(position, at, item) for at, item in _items(document, "")]
    policies = [item for _, _, item in objects if item.get("kind") == "NetworkPolicy"]
    pods = [pod for position, at, item in objects if (pod := _pod(position, at, item, policies)) is not None]
    return Manifests(tuple(pods), len(objects) - len(pods))


def _measure(value: Any, budget: list[int], depth: int) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        raise Malformed(f"The objects have more than {NODES_MAX} values, with aliases written out.")
    if depth > DEPTH_MAX:
        raise Malformed(f"An object is nested deeper than {DEPTH_MAX} levels.")
    if isinstance(value, Mapping):
        for each in value.values():
            _measure(each, budget, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _measure(each, budget, depth + 1)


def _items(document: Fields, at: str) -> Iterator[tuple[str, Fields]]:
    items = document.get("items")
    if str(document.get("kind") or "").endswith("List") and isinstance(items, list):
        for position, item in enumerate(items):
            if isinstance(item, Mapping):
                yield f"{at}/items/{position}", item
    else:
        yield at, document


def _pod(position: int, at: str, item: Fields, policies: list[Fields]) -> PodDocument | None:
    kind = str(item.get("kind") or "")
    outer = _mapping(item.get("metadata"))
    if not kind and isinstance(item.get("containers"), list):
        return PodDocument(position, "PodSpec", "", item, PodContext(pointer=at))
    if kind == "Pod":
        holder, path = item, at
    else:
        steps = _TEMPLATES.get(kind, _TEMPLATE)
        holder, path = _below(item, steps), f"{at}/{'/'.join(steps)}"
        if not isinstance(_mapping(holder.get("spec")).get("containers"), list):
            return None
    spec = _mapping(holder.get("spec"))
    inner = _mapping(holder.get("metadata"))
    namespace = outer.get("namespace")
    labels = _mapping(inner.get("labels"))
    namespace = str(namespace) if namespace else None
    context = PodContext(
        namespace,
        _mapping(inner.get("annotations")),
        True if any(_selects(policy, namespace, labels) for policy in policies) else None,
        f"{path}/spec",
    )
    name = str(outer.get("name") or outer.get("generateName") or "")
    return PodDocument(position, kind, name[:253], _with_defaults(spec) if kind == "Pod" else spec, context, labels)


def _below(item: Fields, steps: Iterable[str]) -> Fields:
    for step in steps:
        item = _mapping(item.get(step))
    return item


def _mapping(value: Any) -> Fields:
    return value if isinstance(value, Mapping) else {}


def _with_defaults(spec: Fields) -> Fields:
    """Return a Pod's spec as the API server stores it: in the network of the node, each port is a port of the node."""
    if spec.get("hostNetwork") is not True:
        return spec
    return {key: _with_host_ports(value) if key.endswith("ontainers") else value for key, value in spec.items()}


def _with_host_ports(containers: Any) -> Any:
    if not isinstance(containers, list):
        return containers
    return [
        {**one, "ports": [_host_port(port) for port in one["ports"]]}
        if isinstance(one, Mapping) and isinstance(one.get("ports"), list)
        else one
        for one in containers
    ]


def _host_port(port: Any) -> Any:
    if isinstance(port, Mapping) and not port.get("hostPort"):
        return {**port, "hostPort": port.get("containerPort")}
    return port


def _selects(policy: Fields, namespace: str | None, labels: Mapping[str, Any]) -> bool:
    """Return whether a NetworkPolicy selects pods with these labels. An empty selector selects all."""
    place = _mapping(policy.get("metadata")).get("namespace")
    selector = _mapping(policy.get("spec")).get("podSelector")
    if (str(place) if place else None) != namespace or not isinstance(selector, Mapping):
        return False
    wanted = _mapping(selector.get("matchLabels"))
    expressions = selector.get("matchExpressions")
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in (expressions if isinstance(expressions, list) else ())
    )


def _holds(expression: Any, labels: Mapping[str, Any]) -> bool:
    if not isinstance(expression, Mapping):
        return False
    key, operator, values = str(expression.get("key")), expression.get("operator"), expression.get("values")
    listed = values if isinstance(values, list) else []
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if operator == "In":
        return key in labels and labels[key] in listed
    return operator == "NotIn" and labels.get(key) not in listed
