"""Scopes of the token specification: what a client asks for, parsed without ever failing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lifecycle.core.errors import MalformedReference
from lifecycle.core.types import parse_repository_name

SCOPES_MAX: Final = 100  # distinct resources in one token; what is beyond is not granted
SCOPE_TEXT_MAX: Final = 64 * 1024  # characters of all scope parameters together
_TYPE: Final = re.compile(r"[a-z0-9]+")
_ACTIONS: Final = ("pull", "push", "delete")  # in the order in which we print them
_CATALOG: Final = ("registry", "catalog")


@dataclass(frozen=True, slots=True)
class Scope:
    """Some actions on one resource; `*` never stands in `actions`, it has been spelled out."""

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
    """Return what `texts` (each a list separated by spaces) ask for, one entry for each resource, in order.

    Whatever does not follow the grammar, names an unknown type, or asks for nothing is left out: a client that asks
    for nonsense gets a token that is good for nothing, never an error.
    """
    wanted: dict[tuple[str, str], frozenset[str]] = {}
    budget = SCOPE_TEXT_MAX
    for text in texts:
        budget -= len(text)
        if budget < 0:
            break
        for item in text.split():
            if (scope := _parse_one(item)) is None:
                continue
            key = (scope.kind, scope.name)
            if key not in wanted and len(wanted) >= SCOPES_MAX:
                continue
            wanted[key] = wanted.get(key, frozenset()) | scope.actions
    return [Scope(kind, name, actions) for (kind, name), actions in wanted.items()]


def granted(wanted: Iterable[Scope], held: Mapping[tuple[str, str], frozenset[str]]) -> list[Scope]:
    """Return requested ∩ held; resources with nothing left are dropped."""
    grant = [Scope(s.kind, s.name, s.actions & held.get((s.kind, s.name), frozenset())) for s in wanted]
    return [scope for scope in grant if scope.actions]


def _parse_one(item: str) -> Scope | None:
    # The name may hold `host:port/`, so the first and the last colon are the borders.
    kind, first, rest = item.partition(":")
    name, last, actions_text = rest.rpartition(":")
    if not first or not last:
        return None
    kind = kind.partition("(")[0]  # the class is deprecated; Distribution itself never asks for one
    if not _TYPE.fullmatch(kind):
        return None
    asked = frozenset(actions_text.split(","))
    if (kind, name) == _CATALOG:
        return CATALOG_SCOPE if "*" in asked else None
    if kind != "repository":
        return None
    try:
        parse_repository_name(name)
    except MalformedReference:
        return None
    actions = frozenset(_ACTIONS) if "*" in asked else asked & frozenset(_ACTIONS)
    return Scope(kind, name, actions) if actions else None
