"""Conversion of a purl to OSV terms: ecosystem, release, package name, version and its key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from packageurl import PackageURL

from lifecycle import versions
from lifecycle.core.errors import MalformedPurl
from lifecycle.versions.ecosystems import SCHEMES, UBUNTU_RELEASE, match_name, repository_address

PURL_MAX_CHARS: Final = 4096
RELEASE_MAX_CHARS: Final = 300
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
# Types that older scanners write: by kind of file, or by distribution. A distribution's name is also the namespace.
_TYPE_OF_ALIAS: Final = {
    "bundler": "gem", "dart-pub": "pub", "dotnet": "nuget", "dotnet-core": "nuget", "gemspec": "gem",
    "go": "golang", "go-module": "golang", "gobinary": "golang", "gomod": "golang", "gradle": "maven", "jar": "maven",
    "java": "maven", "java-archive": "maven", "jenkins-plugin": "maven", "node-pkg": "npm", "packagist": "composer",
    "php-composer": "composer", "pip": "pypi", "pipenv": "pypi", "pnpm": "npm", "poetry": "pypi", "pom": "maven",
    "python": "pypi", "python-pkg": "pypi", "ruby": "gem", "rust": "cargo", "rust-crate": "cargo",
    "rustbinary": "cargo", "rubygems": "gem", "yarn": "npm",
}  # fmt: skip
_TYPE_OF_DISTRIBUTION: Final = {
    "alma": "rpm", "almalinux": "rpm", "alpine": "apk", "amazon": "rpm", "centos": "rpm", "chainguard": "apk",
    "debian": "deb", "fedora": "rpm", "minimos": "apk", "oracle": "rpm", "photon": "rpm", "redhat": "rpm",
    "rocky": "rpm", "suse": "rpm", "ubuntu": "deb", "wolfi": "apk",
}  # fmt: skip
_PACKAGE_MANAGERS: Final = {"dpkg": "deb"}  # types named for the tool; the distribution is in the namespace
# Distributions by their id in purl namespaces and os-release. Other distributions are never guessed: RHEL, Oracle and
# Amazon fix other builds in other versions than AlmaLinux or Rocky.
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
# How the purls of a distribution's packages begin, in canonical form and as older scanners write them.
DISTRIBUTION_PREFIXES: Final = tuple(
    f"pkg:{name}/" for name in sorted({*_DISTRIBUTION_TYPES, *_TYPE_OF_DISTRIBUTION, *_PACKAGE_MANAGERS})
)
_NAMES_BINARIES: Final = frozenset({"AlmaLinux"})  # its advisories name binary packages, others name source packages
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
    """A package version in the terms of advisories. `problem` is why it cannot be checked, or None.

    `key` is None with a problem, and for Maven, whose versions are compared in code.
    """

    ecosystem: str  # without the release suffix; "" when unknown
    release: str  # "12", "v3.18", "22.04"; the package repository that the purl names; "" for none
    name: str
    version: str
    scheme: str
    key: bytes | None
    problem: str | None


# Purls that scanners write for most packages: no character that packageurl treats in a special way.
_PLAIN: Final = re.compile(
    r"pkg:(apk|cargo|deb|gem|golang|maven|npm|nuget|pypi|rpm)/((?:[A-Za-z0-9._+~-]+/)*)([A-Za-z0-9._+~-]+)"
    r"(?:@([A-Za-z0-9._+~:%-]+))?(?:\?([a-z_]+=[A-Za-z0-9._+~:%/@-]+(?:&[a-z_]+=[A-Za-z0-9._+~:%/@-]+)*))?"
)
_IN_LOWER_CASE: Final = frozenset({"apk", "pypi"})


def _parse_plain(purl: str) -> PackageURL | None:
    """Return what PackageURL.from_string returns, in a tenth of the time; None for purls that are not plain."""
    found = _PLAIN.fullmatch(purl)
    if found is None:
        return None
    kind, namespace, name, version, given = found.groups()
    if kind in _IN_LOWER_CASE:
        namespace, name = namespace.lower(), name.lower()
        name = name.replace("_", "-") if kind == "pypi" else name
    elif kind == "npm":
        name = name.lower()
    if version and "%" in version:
        version = unquote(version)
        if not version.strip() or version != version.strip():
            return None
    pairs = dict(part.split("=", 1) for part in given.split("&")) if given else {}
    qualifiers = {key: unquote(value) if "%" in value else value for key, value in sorted(pairs.items())}
    parts = (kind, namespace.rstrip("/") or None, name, version or None, qualifiers, None)
    return tuple.__new__(PackageURL, parts)


def parse_purl(purl: str) -> PackageURL:
    """Return the parsed purl. Raises MalformedPurl."""
    if len(purl) <= PURL_MAX_CHARS and "%00" not in purl and (plain := _parse_plain(purl)) is not None:
        return plain
    if len(purl) > PURL_MAX_CHARS or "\x00" in purl or "%00" in purl:
        raise MalformedPurl("Not a package URL: too long, or contains NUL.", got=purl[:150])
    try:
        purl.encode()  # a non-UTF-8 command argument contains lone surrogates, which cannot be stored
        return PackageURL.from_string(purl)
    except ValueError as error:
        raise MalformedPurl(f"Not a package URL: {error}", got=ascii(purl[:150])) from None


def canonical(parsed: PackageURL) -> PackageURL:
    """Return the purl with the type of the purl specification, where an older scanner wrote another word."""
    if kind := _TYPE_OF_DISTRIBUTION.get(parsed.type):
        return parsed._replace(type=kind, namespace=parsed.namespace or parsed.type)
    kind = _TYPE_OF_ALIAS.get(parsed.type) or _PACKAGE_MANAGERS.get(parsed.type)
    return parsed._replace(type=kind) if kind else parsed


def package_words(purl: str) -> str:
    """Return a distribution's package in words: "Debian python3-urllib3"; the purl itself if it is none."""
    try:
        parsed = canonical(parse_purl(purl))
    except MalformedPurl:
        return purl
    namespace = (parsed.namespace or "").lower()
    return f"{_ECOSYSTEM_OF_DISTRIBUTION.get((parsed.type, namespace), namespace)} {parsed.name}".strip()


def coordinates(purl: str, *, source_name: str | None = None, source_version: str | None = None) -> Coordinates:
    """Return the coordinates of `purl`.

    `source_name` and `source_version` name a distribution's source package, from the inventory. The purl's own
    `upstream` has precedence. Raises MalformedPurl.
    """
    return coordinates_of(parse_purl(purl), source_name=source_name, source_version=source_version)


def coordinates_of(
    parsed: PackageURL, *, source_name: str | None = None, source_version: str | None = None
) -> Coordinates:
    """Return the coordinates of a parsed purl; see `coordinates`."""
    parsed = canonical(parsed)
    if parsed.type in _DISTRIBUTION_TYPES:
        return _of_distribution(parsed, source_name or "", source_version or "")
    ecosystem = _ECOSYSTEM_OF_TYPE.get(parsed.type, "")
    version = parsed.version or ""
    if not ecosystem:
        problem = f"no advisories for purl type {parsed.type[:60]}"
        return Coordinates("", "", parsed.name, version, "", None, problem)
    if ecosystem == "Go" and parsed.name == "stdlib":
        version = version.removeprefix("go")
    qualifiers = parsed.qualifiers if isinstance(parsed.qualifiers, dict) else {}
    repository = repository_address(qualifiers.get("repository_url") or "")[:RELEASE_MAX_CHARS]
    return _with_key(ecosystem, repository, match_name(ecosystem, _language_name(ecosystem, parsed)), version)


def _language_name(ecosystem: str, parsed: PackageURL) -> str:
    namespace = parsed.namespace or ""
    if ecosystem == "Maven":
        return f"{namespace}:{parsed.name}" if namespace else parsed.name
    # Scanners write the end of a Go module's path as the subpath: pgx@v5.5.0#v5 is version v5.5.0 of the module pgx/v5.
    subpath = parsed.subpath if ecosystem == "Go" else None
    return "/".join(part for part in (namespace, parsed.name, subpath) if part)


def _of_distribution(parsed: PackageURL, source_name: str, source_version: str) -> Coordinates:
    qualifiers = parsed.qualifiers if isinstance(parsed.qualifiers, dict) else {}
    ecosystem, release, problem = _distribution(
        parsed.type, (parsed.namespace or "").lower(), qualifiers.get("distro") or ""
    )
    if ecosystem in _NAMES_BINARIES:
        name, version = parsed.name, _with_epoch(parsed.version or "", qualifiers.get("epoch") or "")
    else:
        name, version = _source_package(parsed, qualifiers, source_name, source_version)
    if problem:
        return Coordinates("", "", name, version, "", None, problem)
    return _with_key(ecosystem, release, match_name(ecosystem, name), version)


def _source_package(
    parsed: PackageURL, qualifiers: dict[str, str], source_name: str, source_version: str
) -> tuple[str, str]:
    """Return name and version of the source package: from `upstream`, else the inventory, else the binary package."""
    binary = _with_epoch(parsed.version or "", qualifiers.get("epoch") or "")
    upstream = qualifiers.get("upstream") or ""
    if parsed.type == "rpm" and (source := _SOURCE_RPM.fullmatch(upstream)):
        # A source rpm's name has no epoch. If its version differs from the binary's, the binary's name and version are
        # safe. Epoch 0 would make every perl module look outdated.
        is_same = source[2] == _EPOCH.sub("", binary, count=1)
        return (source[1], binary) if is_same else (parsed.name, binary)
    name, _, version = upstream.partition("@")
    if not name:
        name, version = source_name, source_version
    if not name:
        return parsed.name, binary
    if not version:
        return name, binary
    # Only rpm omits the epoch in a source's version. A dpkg source has its own epoch or none (bsdutils 1:2.36-8 is from
    # util-linux 2.36-8).
    is_without_epoch = parsed.type == "rpm" and version == _EPOCH.sub("", binary, count=1)
    return name, binary if is_without_epoch else version


def _with_epoch(version: str, epoch: str) -> str:
    if not version or not epoch.isascii() or not epoch.isdigit() or not int(epoch) or _EPOCH.match(version):
        return version
    return f"{int(epoch)}:{version}"


@lru_cache(maxsize=4096)
def _distribution(kind: str, namespace: str, distro: str) -> tuple[str, str, str]:
    """Return (ecosystem, release, problem) from namespace and `distro`. With a problem, the other two are ""."""
    identity, release_text = _split_distro(distro.strip(), namespace)
    ecosystem = _ECOSYSTEM_OF_DISTRIBUTION.get((kind, identity), "")
    if not ecosystem:
        what = identity or distro or "(none)"
        return "", "", f"unknown distribution {what[:60]}" if what != "(none)" else "the distribution is unknown"
    if namespace and _ECOSYSTEM_OF_DISTRIBUTION.get((kind, namespace)) != ecosystem:
        return "", "", f"namespace {namespace[:60]} and distribution {distro[:60]} disagree"
    if ecosystem in _WITHOUT_RELEASE:
        return ecosystem, "", ""
    if not release_text:
        return "", "", "the distribution's release is unknown"
    release = _release(ecosystem, release_text)
    if not release:
        return "", "", f"unknown distribution release {distro[:60]}"
    return ecosystem, release, ""


def _split_distro(distro: str, namespace: str) -> tuple[str, str]:
    """Return (distribution id, release text) from `<id>-<version>`, `<id>:<version>`, a codename or a bare version."""
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
    identity_match = re.match(r"([a-z][a-z0-9_.+]*(?:-[a-z][a-z0-9_.+]*)*)[-:]", lowered)
    return (identity_match[1] if identity_match else lowered), ""


def _release(ecosystem: str, text: str) -> str:
    """Return the release in the form of OSV's suffix, without `:LTS`; "" when `text` is not a release."""
    if ecosystem == "Alpine" and text == "edge":
        return "edge"
    if release := _CODENAMES.get(ecosystem, {}).get(text):
        return release
    release_match = _RELEASES[ecosystem].fullmatch(text.upper() if text.endswith(":lts") else text)
    if release_match is None:
        return ""
    return f"v{release_match[1]}" if ecosystem == "Alpine" else release_match[1]


def _with_key(ecosystem: str, release: str, name: str, version: str) -> Coordinates:
    scheme = SCHEMES[ecosystem]
    if not version:
        return Coordinates(ecosystem, release, name, version, scheme, None, "the package has no version")
    if len(name.encode()) > versions.NAME_MAX_BYTES:
        return Coordinates("", "", name, version, "", None, "the package's name is too long")
    try:
        versions.check(scheme, version)
        key = None if scheme == versions.MAVEN else versions.version_key(scheme, version)
        if key is not None and len(key) > versions.KEY_MAX_BYTES:
            raise versions.InvalidVersion("too long")
    except ValueError as error:
        problem = f"invalid {scheme} version: {error}"
        return Coordinates(ecosystem, release, name, version, scheme, None, problem[:200])
    return Coordinates(ecosystem, release, name, version, scheme, key, None)
