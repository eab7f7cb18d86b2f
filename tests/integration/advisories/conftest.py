"""An export on disk, and package versions stored as the SBOM package stores them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lifecycle.sbom.models import PackageVersion
from lifecycle.versions.coordinates import coordinates
from tests.factories.advisories import Export


@pytest.fixture
def export(tmp_path: Path) -> Export:
    return Export(tmp_path / "export")


@pytest.fixture
def stored() -> Callable[..., PackageVersion]:
    """Store a package version with the coordinates of its purl."""

    def store(purl: str, source_name: str = "", source_version: str = "") -> PackageVersion:
        found = coordinates(purl, source_name=source_name, source_version=source_version)
        kind, _, rest = purl.removeprefix("pkg:").partition("/")
        return PackageVersion.objects.create(
            purl=purl,
            type=kind,
            name=rest.partition("?")[0].partition("@")[0].rpartition("/")[2],
            version=found.version,
            source_name=source_name,
            source_version=source_version,
            ecosystem=found.ecosystem,
            release=found.release,
            match_name=found.name,
            match_version=found.version,
            scheme=found.scheme,
            version_key=found.key,
            problem=found.problem or "",
        )

    return store
