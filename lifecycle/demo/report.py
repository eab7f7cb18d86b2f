"""The results of the demonstration: `demo.json` and a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lifecycle.evidence.findings import OPEN_STATES

Findings = Iterable[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RebuiltImage:
    """One image of the demonstration, before and after the rebuild."""

    repository: str
    digest_before: str
    digest_after: str
    method: str  # rebase or build
    findings_before: int
    findings_after: int
    fixed: list[str]  # advisory ids
    seconds: float


@dataclass(frozen=True, slots=True)
class Promoted:
    """One promotion; `source` is the previous environment, None for the first environment."""

    digest: str
    source: str | None
    target: str
    state: str

    def as_json(self) -> dict[str, Any]:
        """Return the object of `demo.json`."""
        return {"digest": self.digest, "from": self.source, "to": self.target, "state": self.state}


def open_pairs(findings: Findings) -> set[tuple[str, str]]:
    """Return the distinct (purl, advisory) pairs of the open findings."""
    return {(row["purl"], row["advisory"]) for row in findings if row["advisory"] and row["state"] in OPEN_STATES}


def rebuilt_image(
    repository: str, digests: tuple[str, str], findings: tuple[Findings, Findings], *, method: str, seconds: float
) -> RebuiltImage:
    """Return the comparison of an image before and after. An advisory is fixed when no package has it any more."""
    before, after = open_pairs(findings[0]), open_pairs(findings[1])
    fixed = {advisory for _, advisory in before} - {advisory for _, advisory in after}
    return RebuiltImage(repository, *digests, method, len(before), len(after), sorted(fixed), seconds)


def document(
    *, web: str, registry: str, seconds: float, images: Sequence[RebuiltImage], promotions: Sequence[Promoted]
) -> dict[str, Any]:
    """Return the content of `demo.json`."""
    return {
        "web": web,
        "registry": registry,
        "seconds": seconds,
        "images": [asdict(image) for image in images],
        "promotions": [promotion.as_json() for promotion in promotions],
    }


def table(images: Sequence[RebuiltImage]) -> list[str]:
    """Return the lines of a table for users: one line per image, with its findings and fixes."""
    heads = ("Image", "Method", "Findings", "Advisories fixed", "Seconds", "New digest")
    rows = [
        (
            image.repository,
            image.method,
            f"{image.findings_before} -> {image.findings_after}",
            str(len(image.fixed)),
            f"{image.seconds:.1f}",
            image.digest_after[:19],
        )
        for image in images
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return [lines[0].rstrip(), "  ".join("-" * width for width in widths), *(line.rstrip() for line in lines[1:])]
