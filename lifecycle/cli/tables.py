"""Tables and values for people: short digests, sizes in MB, findings by severity. `--json` prints the full values."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

SEVERITIES: Final = ("critical", "high", "medium", "low", "unknown")
_SHORT: Final = 12  # hexadecimal digits; enough to recognise an image

Column = tuple[str, Callable[[dict[str, Any]], Any]]


def plain(value: Any, *, keep: str = "") -> str:
    """Return a value as text for a terminal, without control characters: image labels must not move the cursor."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def short(digest: str | None) -> str:
    """Return the algorithm and the first digits of a digest: `sha256:9f86d081884c`."""
    algorithm, colon, value = (digest or "").partition(":")
    return f"{algorithm}{colon}{value[:_SHORT]}"


def megabytes(size_bytes: int) -> str:
    """Return a size in MB (10^6 bytes, as registries count)."""
    return f"{size_bytes / 1e6:.1f} MB"


def findings(image: dict[str, Any]) -> str:
    """Return the open findings of an image, as `1 critical, 2 high`; "none" only if every package was judged.

    Of an index, these are the findings of its worst platform.
    """
    counts = image["findings"]
    found = [f"{counts[name]} {name}" for name in SEVERITIES if counts.get(name)]
    if counts["state"] == "unknown":
        return f"unknown: {counts['why']}"
    if counts.get("unjudged"):
        found.append(f"{counts['unjudged']} not judged")
    elif counts["why"]:
        found.append(counts["why"])
    return ", ".join(found) or "none"


def scanned(image: dict[str, Any]) -> str:
    """Return when an image was scanned; an index is scanned platform by platform."""
    return moment(image["scanned_at"]) or ("per platform" if image["kind"] == "index" else "not yet")


def packages(image: dict[str, Any]) -> Any:
    """Return the number of packages; an index has none of its own."""
    if image["kind"] == "index":
        return "per platform"
    return image["package_count"] if image["scanned_at"] else "unknown"


def names(image: dict[str, Any]) -> str:
    """Return `shop/api:1.0` for each tag, and the repository alone for an untagged image."""
    places = image["places"]
    tagged = [f"{place['repository']}:{tag}" for place in places for tag in place["tags"]]
    return ", ".join(tagged + [place["repository"] for place in places if not place["tags"]])


def moment(text: str | None) -> str:
    """Return a time as `2026-11-28 09:30` (UTC)."""
    return "" if not text else text[:16].replace("T", " ")


def cve(finding: dict[str, Any]) -> str:
    """Return the CVE id of a finding, or its advisory if there is none; "" for a package that cannot be judged."""
    advisory = finding["advisory"] or ""
    ids = [advisory, *finding.get("aliases", ())]
    return next((name for name in ids if name.startswith("CVE-")), str(advisory))


def exploit(finding: dict[str, Any]) -> str:
    """Return what is known of exploits: "known, EPSS 12.3 %"; "?" while no list of known exploits was loaded."""
    known = finding.get("is_exploited")
    parts = ["known"] if known else ["?"] if known is None else []
    if finding.get("epss") is not None:
        parts.append(f"EPSS {finding['epss'] * 100:.1f} %")
    return ", ".join(parts)


def by_severity(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return findings with the worst first, then by id and package."""
    order = {name: position for position, name in enumerate(SEVERITIES)}
    return sorted(found, key=lambda one: (order.get(one["severity"], len(order)), cve(one), one["purl"]))


def print_table(rows: Iterable[dict[str, Any]], columns: Sequence[Column]) -> None:
    """Print a table with a heading. A wide character counts twice, as terminals draw it."""
    lines = [[title for title, _ in columns]] + [[plain(value(row)) for _, value in columns] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [text + " " * (width - _width(text)) for text, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())


def print_pairs(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print one `name  value` per line."""
    lines = [(name, plain(value)) for name, value in pairs]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}".rstrip())


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
