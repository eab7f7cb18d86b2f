"""Scopes of the token specification. The parser of a client's request never raises an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lifecycle.core.errors import MalformedReference
from lifecycle.core.types import parse_repository_name

SCOPES_MAX: Final = 100  # distinct resources in one token; further resources are not granted
SCOPE_TEXT_MAX: Final = 64 * 1024  # characters of all scope parameters together
_TYPE: Final = re.compile(r"[a-z0-9]+")
_ACTIONS: Final = ("pull", "push", "delete")  # in the order of printing
_CATALOG: Final = ("registry", "catalog")


@dataclass(frozen=True, slots=True)
class Scope:
    """Actions on one resource. For a repository, `*` is replaced by the actions it means."""

    kind: str  # "repository" or "registry"
    name: str
    actions: frozenset[str]

    def __str__(self) -> str:
        ordered = [action for action in (*_ACTIONS, "*") if action in self.actions]
        return f"{self.kind}:{self.name}:{','.join(ordered)}"

    def as_access(self) -> dict[str, object]:
        """Return the entry of a token's `access` claim."""
        ordered = [action for action in (*_ACTIONS, "*") if action in self.actions]
        return {"type": self.kind, "name": self.name, "actions": ordered}


def repository_scope(name: str, *actions: str) -> Scope:
    """Return the scope of `actions` on the repository `name`."""
    return Scope("repository", name, frozenset(actions))


CATALOG_SCOPE: Final = Scope(*_CATALOG, frozenset({"*"}))


def parse_scopes(texts: Iterable[str]) -> list[Scope]:
    """Return the scopes requested in `texts` (each a list separated by spaces), one entry per resource, in order.

    Scopes with a wrong syntax, an unknown type, or no action are skipped. A client with only such scopes gets a token
    without access, not an error.
    """
    actions_by_resource: dict[tuple[str, str], frozenset[str]] = {}
    budget = SCOPE_TEXT_MAX
    for text in texts:
        budget -= len(text)
        if budget < 0:
            break
        for item in text.split():
            if (scope := _parse_one(item)) is None:
                continue
            key = (scope.kind, scope.name)
            if key not in actions_by_resource and len(actions_by_resource) >= SCOPES_MAX:
                continue
            actions_by_resource[key] = actions_by_resource.get(key, frozenset()) | scope.actions
    return [Scope(kind, name, actions) for (kind, name), actions in actions_by_resource.items()]


def granted(requested: Iterable[Scope], allowed: Mapping[tuple[str, str], frozenset[str]]) -> list[Scope]:
    """Return the requested actions that are allowed. Resources without an allowed action are omitted."""
    grant = [Scope(s.kind, s.name, s.actions & allowed.get((s.kind, s.name), frozenset())) for s in requested]
    return [scope for scope in grant if scope.actions]


def _parse_one(item: str) -> Scope | None:
    # The name can contain `host:port/`, so it is between the first and the last colon.
    kind, first, rest = item.partition(":")
    name, last, actions_text = rest.rpartition(":")
    if not first or not last:
        return None
    kind = kind.partition("(")[0]  # the class is deprecated; Distribution itself never requests one
    if not _TYPE.fullmatch(kind):
        return None
    requested = frozenset(actions_text.split(","))
    if (kind, name) == _CATALOG:
        return CATALOG_SCOPE if "*" in requested else None
    if kind != "repository":
        return None
    try:
        parse_repository_name(name)
    except MalformedReference:
        return None
    actions = frozenset(_ACTIONS) if "*" in requested else requested & frozenset(_ACTIONS)
    return Scope(kind, name, actions) if actions else None
