"""OSV ecosystems: their version schemes, releases, and the normalisation of package names."""

from __future__ import annotations

import re
from typing import Final

from packageurl.validate import DEFINITIONS_BY_TYPE

# osv-schema docs/schema.md "Defined ecosystems". The others have no scheme here and never match.
SCHEMES: Final[dict[str, str]] = {
    "AlmaLinux": "rpm",
    "Alpaquita": "apk",
    "Alpine": "apk",
    "Azure Linux": "rpm",
    "BellSoft Hardened Containers": "apk",
    "Bitnami": "npm",  # SemVer with leading zeros in dates, which only npm's loose form accepts
    "Chainguard": "apk",
    "Debian": "dpkg",
    "Go": "go",
    "Hex": "semver",
    "Mageia": "rpm",
    "Maven": "maven",
    "MinimOS": "apk",
    "NuGet": "nuget",
    "Packagist": "packagist",
    "Photon OS": "rpm",
    "Pub": "semver",
    "PyPI": "pep440",
    "Red Hat": "rpm",
    "Rocky Linux": "rpm",
    "RubyGems": "rubygems",
    "SUSE": "rpm",
    "SwiftURL": "semver",
    "Ubuntu": "dpkg",
    "Wolfi": "apk",
    "crates.io": "semver",
    "npm": "npm",
    "openEuler": "rpm",
    "openSUSE": "rpm",
}
# Folders of the bulk export to try when a URL has no ecosystems.txt.
EXPORT_DIRECTORIES: Final = tuple(sorted(SCHEMES))
PRO_PREFIX: Final = "Pro:"
DISTRIBUTION_SCHEMES: Final = frozenset({"apk", "dpkg", "rpm"})  # their releases are those of a distribution
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Ecosystem -> the type of its package URLs, whose definition names the repository that no suffix means.
_TYPE_OF_ECOSYSTEM: Final = {
    "Maven": "maven",
    "NuGet": "nuget",
    "Packagist": "composer",
    "PyPI": "pypi",
    "RubyGems": "gem",
    "crates.io": "cargo",
    "npm": "npm",
}
_PEP503: Final = re.compile(r"[-_.]+")
# Ecosystems with case-insensitive purls (apk, npm ... in the purl specification) or registries (NuGet, Go).
_LOWER_CASE: Final = frozenset(
    {"Bitnami", "Go", "Hex", "NuGet", "Packagist", "Pub", "SwiftURL", "npm"}
    | {ecosystem for ecosystem, scheme in SCHEMES.items() if scheme == "apk"}
)
UBUNTU_RELEASE: Final = re.compile(r"([0-9]{1,2}\.(?:04|10|06))(?:\.[0-9]+)?(?::LTS)?")


def repository_address(url: str) -> str:
    """Return a package repository's address in one form: without scheme, user and trailing slashes, in lower case."""
    address = _SCHEME.sub("", url.strip()).rstrip("/")
    return address.rpartition("@")[2].lower() if "@" in address.partition("/")[0] else address.lower()


_OWN_REPOSITORIES: Final = {
    ecosystem: repository_address(DEFINITIONS_BY_TYPE[kind].default_repository_url)
    for ecosystem, kind in _TYPE_OF_ECOSYSTEM.items()
}


def split_ecosystem(text: str) -> tuple[str, str]:
    """Return (ecosystem, release) of an OSV ecosystem string. The release is "" without a suffix.

    `Ubuntu:22.04:LTS` gives `22.04`; `Ubuntu:Pro:18.04:LTS` gives `Pro:18.04`; `Debian:12` gives `12`. For a language,
    it is the address of a package repository: `Packagist:https://packages.example.org/8/` gives
    `packages.example.org/8`, and the language's own repository gives "".
    """
    ecosystem, _, release = text.partition(":")
    if release and SCHEMES.get(ecosystem) not in DISTRIBUTION_SCHEMES:
        address = repository_address(release)
        return ecosystem, "" if address == _OWN_REPOSITORIES.get(ecosystem) else address
    if ecosystem == "Ubuntu":
        release = release.removesuffix(":LTS")
    elif ecosystem == "Alpine" and release[:1].isdigit():
        release = f"v{release}"
    return ecosystem, release


def match_name(ecosystem: str, name: str) -> str:
    """Return the normalised `name`, equal for records and packages (PEP 503 for PyPI, lower case for NuGet ...)."""
    if ecosystem == "PyPI":
        return _PEP503.sub("-", name).lower()
    return name.lower() if ecosystem in _LOWER_CASE else name
