"""Public feeds that an admin can add with one choice. Machines without internet name a mirror of the same layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lifecycle.advisories.models import Feed

# OSV's public export (https://google.github.io/osv.dev/data/): one folder per ecosystem.
_OSV: Final = "https://osv-vulnerabilities.storage.googleapis.com"
_ECOSYSTEMS: Final = (
    "Debian", "Alpine", "Wolfi", "Chainguard", "Ubuntu", "AlmaLinux", "Rocky Linux", "SUSE", "openSUSE", "Red Hat",
    "PyPI", "npm", "Go", "Maven", "crates.io", "RubyGems", "NuGet", "Packagist", "Bitnami",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preset:
    """A feed with its usual name, its address, and the hours between two synchronisations."""

    key: str
    label: str
    kind: str
    location: str
    every_hours: int


def _of_ecosystem(name: str) -> Preset:
    key = f"osv-{name.lower().replace(' ', '-').replace('.', '-')}"
    return Preset(key, f"OSV: {name}", Feed.Kind.OSV, f"{_OSV}/{name.replace(' ', '%20')}", 4)


_ALL: Final = (
    Preset("osv", "OSV: all ecosystems", Feed.Kind.OSV, _OSV, 4),
    *map(_of_ecosystem, _ECOSYSTEMS),
    Preset(
        "kev",
        "Known exploited vulnerabilities (CISA KEV)",
        Feed.Kind.KEV,
        "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json",
        4,
    ),
    Preset(
        "epss",
        "Exploit scores (FIRST EPSS)",
        Feed.Kind.EPSS,
        "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz",
        12,
    ),
    Preset(
        "vulnrichment",
        "CVE records with ratings (CISA vulnrichment)",
        Feed.Kind.CVE,
        "https://github.com/cisagov/vulnrichment/archive/refs/heads/develop.zip",
        24,
    ),
)
PRESETS: Final = {preset.key: preset for preset in _ALL}
