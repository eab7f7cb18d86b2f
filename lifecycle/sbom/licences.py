"""The licences that packages declare, as scans name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SHOWN: Final = 20  # packages named for each licence
_TEXT_MAX: Final = 300  # characters; some packages declare the whole text of their licence
_LICENCES_MAX: Final = 2000  # different ones in one image
OTHER: Final = "other licences"  # of packages beyond that number


@dataclass(slots=True)
class Licences:
    """The licences of one image: {licence or SPDX expression: names of some packages that declare it}."""

    packages: dict[str, list[str]] = field(default_factory=dict)
    undeclared_count: int = 0


def read_licences(artifacts: Iterable[Mapping[str, Any]]) -> Licences:
    """Return the declared licences of the packages in syft's document.

    A package with several entries declares all of them. An entry that is a whole text is cut.
    """
    found = Licences()
    for item in artifacts:
        entries = item.get("licenses")
        texts = {text for entry in entries if (text := _text_of(entry))} if isinstance(entries, list) else set()
        if not texts:
            found.undeclared_count += 1
        for text in texts:
            name = text if text in found.packages or len(found.packages) < _LICENCES_MAX else OTHER
            names = found.packages.setdefault(name, [])
            if len(names) < SHOWN and (package := str(item.get("name") or "")[:200].replace("\x00", "")) not in names:
                names.append(package)
    return found


def _text_of(entry: object) -> str:
    if isinstance(entry, str):  # syft 0.x
        text = entry
    elif isinstance(entry, Mapping):
        text = str(entry.get("spdxExpression") or entry.get("value") or "")
    else:
        return ""
    return " ".join(text.replace("\x00", "").split())[:_TEXT_MAX]
