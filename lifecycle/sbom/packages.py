"""Packages as scans and inventory files name them, and the keys by which equal ones are stored once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from packageurl import PackageURL

from lifecycle.core.errors import MalformedPurl
from lifecycle.versions.coordinates import DISTRIBUTION_PREFIXES, canonical, parse_purl

PURL_MAX: Final = 2000  # bytes


_KEY_MAX: Final = 2500  # bytes of a package's key; a b-tree entry holds 2,704


_HAS_UPSTREAM: Final = re.compile(r"[?&]upstream=[^&#]", re.IGNORECASE)


OWNER_MAX: Final = 500  # characters


@dataclass(frozen=True, slots=True)
class Package:
    """One package in an image; `layer_position` is None where the source does not name the layer."""

    purl: str
    source_name: str = ""
    source_version: str = ""
    layer_position: int | None = None
    version: str = ""  # used where the purl has none
    owner: str = ""  # purl of the distribution's package that owns its files


class PackageKey(NamedTuple):
    """The identity of a package version: its purl, and other values that affect its matching."""

    purl: str
    version: str = ""  # only where the purl has none
    source_name: str = ""  # only where the purl does not have it and advisories name source packages
    source_version: str = ""
    owner: str = ""  # the distribution's package that it is judged as, for packages of languages

    def __str__(self) -> str:
        if self.owner:
            return "\t".join(self)
        return self.purl if not any(self[1:]) else "\t".join(self[:4])  # as before there were owners


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A package version, compared by identity: a hash of all its texts, for each package of each image, takes long."""

    key: PackageKey
    text: str
    package: Package  # the first one with this key


class Keys:
    """The keys of packages. Images share most of their packages, so each one is looked at once.

    It remembers packages by identity: an import makes one object for equal packages (`inventories._Packages`).
    """

    _SIZE_MAX: Final = 200_000  # packages held in memory

    def __init__(self) -> None:
        self._entries: dict[PackageKey, Entry] = {}
        self._known: dict[int, tuple[Package, Entry | None]] = {}  # holds the package, so that its id stays taken

    def of(self, package: Package) -> Entry | None:
        """Return the entry of `package`, the same for equal keys; None if it cannot be stored."""
        known = self._known.get(id(package))
        if known is None:
            known = self._known[id(package)] = (package, self._entry(package))
        return known[1]

    def _entry(self, package: Package) -> Entry | None:
        if not is_storable(package):
            return None
        key = key_of(package)
        return self._entries.setdefault(key, Entry(key, str(key), package))

    def trim(self) -> None:
        """Forget everything if it has become too big. Never within a batch: equal keys have one entry there."""
        if len(self._known) > self._SIZE_MAX:
            self._known.clear()
            self._entries.clear()


def is_storable(package: Package) -> bool:
    purl = package.purl
    if not purl.startswith("pkg:") or "\x00" in purl or len(purl.encode(errors="replace")) > PURL_MAX:
        return False
    source = (package.source_name[:255], package.source_version[:500])
    parts = (purl, package.version[:500], *source, owner_of(package))
    return sum(len(text.encode(errors="replace")) for text in parts) <= _KEY_MAX


def key_of(package: Package) -> PackageKey:
    """Return the key of the package version. Package versions that match differently have different keys."""
    version = ""
    if package.version and not _has_version(package.purl):
        version = with_epoch(parse_purl(package.purl), package.version)
    return _key(package.purl, version, package.source_name, package.source_version, owner_of(package))


def key_of_row(purl: str, version: str, source_name: str, source_version: str, owner: str) -> PackageKey:
    """Return the key of a stored package version, from the values of its row."""
    return _key(purl, "" if _has_version(purl) else version, source_name, source_version, owner)


def owner_of(package: Package) -> str:
    """Return the purl of the distribution's package that owns this package of a language, without what is not needed.

    "" if there is none, and for packages of distributions.
    """
    if not package.owner or package.purl.startswith(DISTRIBUTION_PREFIXES):
        return ""
    return _short_owner(package.owner)


@lru_cache(maxsize=4096)
def _short_owner(purl: str) -> str:
    try:
        parsed = canonical(parse_purl(purl))
    except MalformedPurl:
        return ""
    given = parsed.qualifiers if isinstance(parsed.qualifiers, dict) else {}
    needed = {name: value for name, value in given.items() if name in {"distro", "epoch"}}
    short = parsed._replace(qualifiers=needed, subpath=None).to_string()
    return short if parsed.type in {"apk", "deb", "rpm"} and len(short) <= OWNER_MAX else ""


def _key(purl: str, version: str, source_name: str, source_version: str, owner: str) -> PackageKey:
    if owner:
        return PackageKey(purl, version[:500], owner=owner)
    if not source_name or not purl.startswith(DISTRIBUTION_PREFIXES) or _HAS_UPSTREAM.search(purl):
        return PackageKey(purl, version[:500])
    return PackageKey(purl, version[:500], source_name[:255], source_version[:500])


def _has_version(purl: str) -> bool:
    """Return whether the purl has a version, or is malformed, so that a separate version would not help."""
    name = purl.partition("#")[0].partition("?")[0].rpartition("/")[2]
    if 0 < name.rfind("@") < len(name) - 1:
        return True  # the fast path for nearly all purls; parsing each purl would take most of an import's time
    try:
        return bool(parse_purl(purl).version)
    except MalformedPurl:
        return True


def with_epoch(parsed: PackageURL, version: str) -> str:
    qualifiers = parsed.qualifiers if isinstance(parsed.qualifiers, dict) else {}
    epoch = qualifiers.get("epoch") or ""
    has_epoch = epoch.isascii() and epoch.isdigit() and int(epoch) and ":" not in version
    return f"{epoch}:{version}" if has_epoch else version
