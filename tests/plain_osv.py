"""The evaluation of the OSV schema, transcribed from its pseudo code, over ranks that a tool of the ecosystem gave.

https://ossf.github.io/osv-schema/#evaluation, and the order of events at the same version as osv.dev has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_TIES: Final = {"introduced": 0, "last_affected": 1, "fixed": 2}


def is_affected(entry: Mapping[str, Any], version: str, ranks: Mapping[str, int]) -> bool | None:
    """Return whether an entry of `affected` affects a version; None when the tool cannot order one of the events.

    `ranks` has the rank of each version that the tool knows.
    """
    if _is_listed(entry, version, ranks):
        return True
    is_unsure = False
    for item in entry.get("ranges") or []:
        if item["type"] == "GIT":
            continue
        found = _is_in_range(item["events"], version, ranks)
        if found:
            return True
        is_unsure |= found is None
    return None if is_unsure else False


def _is_listed(entry: Mapping[str, Any], version: str, ranks: Mapping[str, int]) -> bool:
    listed = entry.get("versions") or []
    own = ranks.get(version)
    return version in listed or (own is not None and any(ranks.get(text) == own for text in listed))


def _is_in_range(events: list[dict[str, str]], version: str, ranks: Mapping[str, int]) -> bool | None:
    pairs = [(kind, text) for event in events for kind, text in event.items()]
    if version not in ranks or any(text not in {"0", "*"} and text not in ranks for _, text in pairs):
        return None
    own = ranks[version]
    limits = [text for kind, text in pairs if kind == "limit"]
    if limits and "*" not in limits and not any(own < ranks[text] for text in limits):
        return False
    walked = sorted(
        ((-1 if text == "0" and kind == "introduced" else ranks[text], _TIES[kind], kind) for kind, text in pairs
         if kind != "limit" and (text != "0" or kind == "introduced")),
    )  # fmt: skip
    vulnerable = False
    for rank, _, kind in walked:
        if kind == "introduced" and own >= rank:
            vulnerable = True
        elif (kind == "fixed" and own >= rank) or (kind == "last_affected" and own > rank):
            vulnerable = False
    return vulnerable
