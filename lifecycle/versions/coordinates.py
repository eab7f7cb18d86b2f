"""From a purl to OSV terms: ecosystem, release, package name, version and its key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from packageurl import PackageURL

from lifecycle import versions
from lifecycle.core.errors import MalformedPurl
from lifecycle.versions.ecosystems import SCHEMES, UBUNTU_RELEASE, match_name

PURL_MAX_CHARS: Final = 4096
_ECOSYSTEM_OF_TYPE: Final = {
    "bitnami": "Bitnami",
    "cargo": "crates.io",
    "composer": "Packagist",
    "gem": "RubyGems",
    "golang": "Go",
    "hex": "Hex",
    "maven": "Maven",
    "npm": "npm",
    "nuget": "NuGet",
    "pub": "Pub",
    "pypi": "PyPI",
    "swift": "SwiftURL",
}
# Distributions by their id as purl namespaces and os-release write it. What is not here is never guessed at:
# RHEL, Oracle and Amazon fix other builds at other versions than AlmaLinux or Rocky do.
_ECOSYSTEM_OF_DISTRIBUTION: Final = {
    ("apk", "alpine"): "Alpine",
    ("apk", "chainguard"): "Chainguard",
    ("apk", "minimos"): "MinimOS",
    ("apk", "wolfi"): "Wolfi",
    ("deb", "debian"): "Debian",
    ("deb", "ubuntu"): "Ubuntu",
    ("rpm", "alma"): "AlmaLinux",
    ("rpm", "almalinux"): "AlmaLinux",
    ("rpm", "rocky"): "Rocky Linux",
    ("rpm", "rocky-linux"): "Rocky Linux",
    ("rpm", "rockylinux"): "Rocky Linux",
}
_DISTRIBUTION_TYPES: Final = frozenset({"apk", "deb", "rpm"})
_WITHOUT_RELEASE: Final = frozenset({"Chainguard", "MinimOS", "Wolfi"})
_CODENAMES: Final = {
    "Debian": {
        "squeeze": "6", "wheezy": "7", "jessie": "8", "stretch": "9", "buster": "10", "bullseye": "11",
        "bookworm": "12", "trixie": "13", "forky": "14", "duke": "15", "sid": "sid", "unstable": "sid",
    },
    "Ubuntu": {
        "trusty": "14.04", "xenial": "16.04", "bionic": "18.04", "cosmic": "18.10", "disco": "19.04", "eoan": "19.10",
        "focal": "20.04", "groovy": "20.10", "hirsute": "21.04", "impish": "21.10", "jammy": "22.04",
        "kinetic": "22.10", "lunar": "23.04", "mantic": "23.10", "noble": "24.04", "oracular": "24.10",
        "plucky": "25.04", "questing": "25.10", "resolute": "26.04",
    },
}  # fmt: skip
_RELEASES: Final = {
    "Debian": re.compile(r"([0-9]+)(?:\.[0-9]+)*"),
    "Ubuntu": UBUNTU_RELEASE,
    "Alpine": re.compile(r"v?([0-9]+\.[0-9]+)(?:\.[0-9]+)*(?:_(?:rc|beta)[0-9]*)?"),
    "AlmaLinux": re.compile(r"([0-9]+)(?:\.[0-9]+)*"),
    "Rocky Linux": re.compile(r"([0-9]+)(?:\.[0-9]+)*"),
}
_EPOCH: Final = re.compile(r"[0-9]+:")
_SOURCE_RPM: Final = re.compile(r"(.+)-([^-]+-[^-]+)\.(?:no)?src(?:\.rpm)?")


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A package version as advisories speak of it; `problem` says why it cannot be judged, else it is None.

    `key` is None with a problem, and for Maven, whose versions are compared in code.
    """

    ecosystem: str  # without suffix; "" when unknown
    release: str  # "12", "v3.18", "22.04"; "" where the ecosystem has none
    name: str
    version: str
    scheme: str
    key: bytes | None
    problem: str | None


def parse_purl(purl: str) -> PackageURL:
    """Return the purl taken apart; raises MalformedPurl."""
    if len(purl) > PURL_MAX_CHARS or "\x00" in purl or "%00" in purl:
        raise MalformedPurl("Not a package URL: too long, or with a NUL.", got=purl[:150])
    try:
        purl.encode()  # an argument that is no UTF-8 comes with halves of pairs, which nothing can store
        return PackageURL.from_string(purl)
    except ValueError as error:
        raise MalformedPurl(f"Not a package URL: {error}", got=ascii(purl[:150])) from None


def coordinates(purl: str, *, source_name: str | None = None, source_version: str | None = None) -> Coordinates:
    """Return where `purl` stands in OSV's terms.

    `source_name` and `source_version` are what the inventory says of a distribution's source package; the purl's own
    `upstream` goes before them. Raises MalformedPurl.
    """
    parsed = parse_purl(purl)
    if parsed.type in _DISTRIBUTION_TYPES:
        return _of_distribution(parsed, source_name or "", source_version or "")
    ecosystem = _ECOSYSTEM_OF_TYPE.get(parsed.type, "")
    version = parsed.version or ""
    if not ecosystem:
        problem = f"no advisories are known for purl type {parsed.type[:60]}"
        return Coordinates("", "", parsed.name, version, "", None, problem)
    if ecosystem == "Go" and parsed.name == "stdlib":
        version = version.removeprefix("go")
    return _judged(ecosystem, "", match_name(ecosystem, _language_name(ecosystem, parsed)), version)


def _language_name(ecosystem: str, parsed: PackageURL) -> str:
    namespace = parsed.namespace or ""
    if not namespace:
        return parsed.name
    return f"{namespace}:{parsed.name}" if ecosystem == "Maven" else f"{namespace}/{parsed.name}"


def _of_distribution(parsed: PackageURL, source_name: str, source_version: str) -> Coordinates:
    qualifiers = parsed.qualifiers if isinstance(parsed.qualifiers, dict) else {}
    name, version = _source_package(parsed, qualifiers, source_name, source_version)
    ecosystem, release, problem = _distribution(parsed, qualifiers.get("distro") or "")
    if problem:
        return Coordinates("", "", name, version, "", None, problem)
    return _judged(ecosystem, release, match_name(ecosystem, name), version)


def _source_package(
    parsed: PackageURL, qualifiers: dict[str, str], source_name: str, source_version: str
) -> tuple[str, str]:
    """Return name and version of the source package: `upstream`, else what the inventory says, else the binary's."""
    binary = _with_epoch(parsed.version or "", qualifiers.get("epoch") or "")
    upstream = qualifiers.get("upstream") or ""
    if parsed.type == "rpm" and (found := _SOURCE_RPM.fullmatch(upstream)):
        # A source rpm's name has no epoch. Where it is of another version than its binary, the binary's own name and
        # version are the safe ones: to take epoch 0 would make every perl module look ancient.
        same = found[2] == _EPOCH.sub("", binary, count=1)
        return (found[1], binary) if same else (parsed.name, binary)
    name, _, version = upstream.partition("@")
    if not name:
        name, version = source_name, source_version
    if not name:
        return parsed.name, binary
    if not version:
        return name, binary
    # Only rpm leaves the epoch out of a source's version; dpkg's sources have their own, or none (bsdutils 1:2.36-8 is
    # of util-linux 2.36-8).
    is_binarys = parsed.type == "rpm" and version == _EPOCH.sub("", binary, count=1)
    return name, binary if is_binarys else version


def _with_epoch(version: str, epoch: str) -> str:
    if not version or not epoch.isascii() or not epoch.isdigit() or not int(epoch) or _EPOCH.match(version):
        return version
    return f"{int(epoch)}:{version}"


def _distribution(parsed: PackageURL, distro: str) -> tuple[str, str, str]:
    """Return (ecosystem, release, problem) from namespace and `distro`; a problem means that nothing is known."""
    namespace = (parsed.namespace or "").lower()
    identity, release_text = _split_distro(distro.strip(), namespace)
    ecosystem = _ECOSYSTEM_OF_DISTRIBUTION.get((parsed.type, identity), "")
    if not ecosystem:
        what = identity or distro or "(none)"
        return "", "", f"unknown distribution {what[:60]}" if what != "(none)" else "the distribution is not known"
    if namespace and _ECOSYSTEM_OF_DISTRIBUTION.get((parsed.type, namespace)) != ecosystem:
        return "", "", f"namespace {namespace[:60]} and distribution {distro[:60]} disagree"
    if ecosystem in _WITHOUT_RELEASE:
        return ecosystem, "", ""
    if not release_text:
        return "", "", "the distribution's release is not known"
    release = _release(ecosystem, release_text)
    if not release:
        return "", "", f"unknown distribution release {distro[:60]}"
    return ecosystem, release, ""


def _split_distro(distro: str, namespace: str) -> tuple[str, str]:
    """Return (id, release text) of `<id>-<version>`, `<id>:<version>`, a codename or a bare version."""
    lowered = distro.lower()
    for identity in sorted({namespace, *(known for _, known in _ECOSYSTEM_OF_DISTRIBUTION)} - {""}, key=len)[::-1]:
        if lowered == identity:
            return identity, ""
        if lowered.startswith((f"{identity}-", f"{identity}:")):
            return identity, lowered[len(identity) + 1 :]
    is_release = lowered[:1].isdigit() or (lowered[:1] == "v" and lowered[1:2].isdigit())
    if not lowered or is_release or any(lowered in names for names in _CODENAMES.values()):
        return namespace, lowered
    if lowered == "edge":
        return namespace, lowered
    found = re.match(r"([a-z][a-z0-9_.+]*(?:-[a-z][a-z0-9_.+]*)*)[-:]", lowered)
    return (found[1] if found else lowered), ""


def _release(ecosystem: str, text: str) -> str:
    """Return the release as OSV's suffix has it, without `:LTS`; "" when `text` is none."""
    if ecosystem == "Alpine" and text == "edge":
        return "edge"
    if release := _CODENAMES.get(ecosystem, {}).get(text):
        return release
    found = _RELEASES[ecosystem].fullmatch(text.upper() if text.endswith(":lts") else text)
    if found is None:
        return ""
    return f"v{found[1]}" if ecosystem == "Alpine" else found[1]


def _judged(ecosystem: str, release: str, name: str, version: str) -> Coordinates:
    scheme = SCHEMES[ecosystem]
    if not version:
        return Coordinates(ecosystem, release, name, version, scheme, None, "the package has no version")
    if len(name.encode()) > versions.NAME_MAX_BYTES:
        return Coordinates("", "", name, version, "", None, "the package's name is too long to be judged")
    try:
        versions.check(scheme, version)
        key = None if scheme == versions.MAVEN else versions.version_key(scheme, version)
        if key is not None and len(key) > versions.KEY_MAX_BYTES:
            raise versions.InvalidVersion("too long to be judged")
    except ValueError as error:
        problem = f"invalid {scheme} version: {error}"
        return Coordinates(ecosystem, release, name, version, scheme, None, problem[:200])
    return Coordinates(ecosystem, release, name, version, scheme, key, None)
