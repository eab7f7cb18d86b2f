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

    def add(self, package: str, declared: Iterable[str]) -> None:
        """Add a package with the licences that it declares. A package with several entries declares all of them."""
        texts = {text for entry in declared if (text := _text_of(entry))}
        if not texts:
            self.undeclared_count += 1
        for text in texts:
            name = text if text in self.packages or len(self.packages) < _LICENCES_MAX else OTHER
            names = self.packages.setdefault(name, [])
            if len(names) < SHOWN and (shown := package[:200].replace("\x00", "")) not in names:
                names.append(shown)


def read_licences(artifacts: Iterable[Mapping[str, Any]]) -> Licences:
    """Return the declared licences of the packages in syft's document. An entry that is a whole text is cut."""
    found = Licences()
    for item in artifacts:
        entries = item.get("licenses")
        texts = [_text_of(entry) for entry in entries] if isinstance(entries, list) else []
        found.add(str(item.get("name") or ""), texts)
    return found


def _text_of(entry: object) -> str:
    if isinstance(entry, str):  # syft 0.x
        text = entry
    elif isinstance(entry, Mapping):
        text = str(entry.get("spdxExpression") or entry.get("value") or "")
    else:
        return ""
    return " ".join(text.replace("\x00", "").split())[:_TEXT_MAX]
