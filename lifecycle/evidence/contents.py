"""What the checks of files found in images: one definition for pages, the API and policies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lifecycle.sbom.models import ContentCheck, ImageContentSet

NOT_CHECKED: Final = "The files of this image were not checked yet. Rescan it."


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One problem of one file of an image, and the layer that brought it."""

    kind: str
    path: str
    detail: str
    layer: int  # position, 0 is the lowest


@dataclass(frozen=True, slots=True)
class ImageContents:
    """What is known of the files of one platform manifest. With a `problem`, nothing counts as absent."""

    found: tuple[FileProblem, ...]  # by kind, layer and path; long lists are cut
    counts: Mapping[str, int]  # exact, by kind
    problem: str = ""
    malware: str = "unknown"  # off, clean, found, unknown
    malware_problem: str = ""
    engine: str = ""
    checked_at: datetime | None = None

    @property
    def is_checked(self) -> bool:
        return self.checked_at is not None

    @property
    def cut(self) -> frozenset[str]:
        """The kinds of which not every file is listed."""
        listed: dict[str, int] = defaultdict(int)
        for item in self.found:
            listed[item.kind] += 1
        return frozenset(kind for kind, count in self.counts.items() if count > listed[kind])

    def as_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "checked_at": self.checked_at,
            "problem": self.problem,
            "malware": self.malware,
            "malware_problem": self.malware_problem,
            "engine": self.engine,
            "counts": dict(self.counts),
            "found": [
                {"kind": item.kind, "path": f"/{item.path}", "detail": item.detail, "layer": item.layer}
                for item in self.found
            ],
        }


UNCHECKED: Final = ImageContents((), {}, NOT_CHECKED, malware_problem=NOT_CHECKED)


def contents_of(image_ids: Collection[int]) -> dict[int, ImageContents]:
    """Return what is known of the files of these platform manifests, for each of them. Two queries for any number."""
    checks = ContentCheck.objects.in_bulk(image_ids) if image_ids else {}
    rows = ImageContentSet.objects.filter(image__in=checks).select_related("content_set") if checks else ()
    found: dict[int, list[FileProblem]] = defaultdict(list)
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        found[row.image_id] += [
            FileProblem(kind, path, detail, row.layer_position) for kind, path, detail in row.content_set.entries
        ]
        for kind, count in row.content_set.counts.items():
            counts[row.image_id][kind] += count
    return {
        pk: _contents(checks[pk], found[pk], counts[pk]) if pk in checks else UNCHECKED
        for pk in dict.fromkeys(image_ids)
    }


def _contents(check: ContentCheck, found: list[FileProblem], counts: Mapping[str, int]) -> ImageContents:
    return ImageContents(
        tuple(sorted(found, key=lambda item: (item.kind, item.layer, item.path))),
        dict(sorted(counts.items())),
        check.problem,
        check.malware,
        check.malware_problem,
        check.engine,
        check.checked_at,
    )
