"""When the free security support of distributions and runtimes ends, from a dated table that an operator can replace.

The dates are those of the projects, with their free long-term support. Paid support is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from django.conf import settings

from lifecycle.core import clock
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion

_SHIPPED: Final = Path(__file__).with_name("end_of_life.json")
_FILE_MAX: Final = 1024**2  # bytes
_VERSION: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_RUNTIME_TYPE: Final = "generic"  # the purls that syft gives to programs which it recognises by their content

log = structlog.get_logger(__name__)

_Ends = Mapping[str, Mapping[str, date]]


@dataclass(frozen=True, slots=True)
class Table:
    """The dates by name and cycle: debian 12, alpine 3.18, python 3.11."""

    as_of: date
    distributions: _Ends
    runtimes: _Ends


@dataclass(frozen=True, slots=True)
class Support:
    """The support of a distribution or runtime in an image. Without a date, it is unknown, not supported."""

    name: str
    version: str
    ends_on: date | None
    as_of: date  # of the table

    @property
    def is_over(self) -> bool | None:
        """Whether the support has ended; None: nobody knows."""
        return None if self.ends_on is None else self.ends_on < clock.now().date()

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "ends_on": self.ends_on, "is_over": self.is_over}


def table() -> Table:
    """Return the table: that of END_OF_LIFE_FILE if it can be read, else the shipped one."""
    given = settings.END_OF_LIFE_FILE
    if given:
        path = Path(given)
        try:
            state = path.stat()
            return _read(given, state.st_mtime_ns, state.st_size)
        except (OSError, ValueError) as error:  # an unreadable file must not take pages away
            log.warning("end_of_life_file_ignored", reason=str(error)[:200])
    return _read(str(_SHIPPED), 0, 0)


@lru_cache(maxsize=2)
def _read(path: str, _changed_ns: int, size_bytes: int) -> Table:
    if size_bytes > _FILE_MAX:
        raise ValueError(f"larger than {_FILE_MAX} bytes")
    return parse(Path(path).read_bytes())


def parse(content: bytes) -> Table:
    """Return the table in a JSON file of the form of `end_of_life.json`. Raises ValueError with the place."""
    value = orjson.loads(content)
    if not isinstance(value, dict):
        raise ValueError("/ is not an object")
    return Table(_date(value.get("as_of"), "/as_of"), _ends(value, "distributions"), _ends(value, "runtimes"))


def _ends(value: Mapping[str, Any], key: str) -> _Ends:
    found = value.get(key, {})
    if not isinstance(found, dict) or not all(isinstance(cycles, dict) for cycles in found.values()):
        raise ValueError(f"/{key} is not an object of objects")
    return {
        name: {cycle: _date(text, f"/{key}/{name}/{cycle}") for cycle, text in cycles.items()}
        for name, cycles in found.items()
    }


def _date(text: object, place: str) -> date:
    if not isinstance(text, str):
        raise ValueError(f"{place} is not a date such as 2026-06-30")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{place} is not a date such as 2026-06-30") from None


def end_of(cycles: Mapping[str, date], version: str) -> date | None:
    """Return when the longest cycle that `version` belongs to ends: 3.18.4 is of 3.18, and 3.1 is not of 3.10."""
    found = _VERSION.match(version.removeprefix("v"))
    parts = found[0].split(".") if found else []
    for length in range(len(parts), 0, -1):
        if (end := cycles.get(".".join(parts[:length]))) is not None:
            return end
    return None


def distribution_support(distro: str) -> Support | None:
    """Return the support of a distribution such as debian-12; None for an image without one."""
    if not distro:
        return None
    known = table()
    name, _, version = distro.partition("-")
    return Support(name, version, end_of(known.distributions.get(name, {}), version), known.as_of)


def supports_of(images: Sequence[Image]) -> Mapping[int, Sequence[Support]]:
    """Return {image id: its distribution and recognised runtimes}; every id has an entry. One query for any number."""
    known = table()
    found: dict[int, list[Support]] = {}
    for image in images:
        own = distribution_support(image.distro)
        found[image.pk] = [own] if own is not None else []
    image_of = "inventory_packages__inventory__image_inventories__image"
    rows = PackageVersion.objects.filter(
        type=_RUNTIME_TYPE, name__in=list(known.runtimes), **{f"{image_of}__in": list(found)}
    ).values_list(image_of, "name", "version")
    for image_id, name, version in rows.distinct().order_by("name", "version"):
        found[image_id].append(Support(name, version, end_of(known.runtimes[name], version), known.as_of))
    return found
