"""Judge an SBOM that somebody sends, without storing anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from lifecycle.evidence.findings import Finding, findings_of_purls
from lifecycle.sbom.documents import Document
from lifecycle.sbom.services import coordinates_of_package
from lifecycle.versions.coordinates import Coordinates

_NO_PURL = "no package URL"


@dataclass(frozen=True, slots=True)
class Judged:
    """The findings of a document, and why components could not be judged: {reason: number of components}."""

    findings: list[Finding]
    unknown: dict[str, int]
    package_count: int


def judge_document(document: Document) -> Judged:
    """Return the findings of the packages that a document lists, as for an image with these packages."""
    known: dict[str, Coordinates] = {}
    dropped_count = document.unnamed_count
    for package in document.packages:
        coordinates = coordinates_of_package(package)
        if coordinates is None:
            dropped_count += 1
        else:
            known.setdefault(package.purl, coordinates)
    findings = findings_of_purls(list(known.items()))
    reasons = Counter(finding.reason or "unknown" for finding in findings if finding.state == "unknown")
    if dropped_count:
        reasons[_NO_PURL] += dropped_count
    return Judged(findings, dict(reasons.most_common()), len(known))
