"""Lists that machines read often, each in one SQL statement, as rows that become JSON without further work."""

from __future__ import annotations

from typing import Any, Final

from django.db import connection

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.covers import visible_sql

# Field of an image in the API -> its count column.
FINDING_COUNTS: Final = {
    "critical": "critical_count",
    "high": "high_count",
    "medium": "medium_count",
    "low": "low_count",
    "unknown": "unknown_count",
    "fixable": "fixable_count",
}
_FINDINGS: Final = ", ".join(f"'{name}', i.{column}" for name, column in FINDING_COUNTS.items())
# Field of the list -> expression over lifecycle_image as i. A test compares the rows with the serializer's.
IMAGE_COLUMNS: Final = {
    "digest": "i.digest",
    "places": "(SELECT coalesce(json_agg(json_build_object('repository', p.name, 'tags', p.tags)"
    " ORDER BY p.name, p.id), '[]') FROM ({places}) p)",
    "kind": "i.kind",
    "media_type": "i.media_type",
    "platform": "concat_ws('/', nullif(i.os, ''), nullif(i.architecture, ''), nullif(i.variant, ''))",
    "size_bytes": "i.size_bytes",
    "distro": "i.distro",
    "labels": "i.labels::json",
    "annotations": "i.annotations::json",
    "base_name": "i.base_name",
    "base_digest": "i.base_digest",
    "created_at": "i.created_at",
    "first_seen_at": "i.first_seen_at",
    "scanned_at": "i.scanned_at",
    "scan_problem": "i.scan_problem",
    "package_count": "i.package_count",
    "findings": f"json_build_object({_FINDINGS})",
}
_PLACES: Final = """
SELECT r.name, m.id, ARRAY(
    SELECT t.name FROM lifecycle_tag t WHERE t.image_id = i.id AND t.repository_id = r.id ORDER BY t.name COLLATE "C"
) AS tags
FROM lifecycle_repositoryimage m JOIN lifecycle_repository r ON r.id = m.repository_id
WHERE m.image_id = i.id AND m.removed_at IS NULL AND {visible}
"""
_IN_REPOSITORY: Final = """EXISTS (
    SELECT FROM lifecycle_repositoryimage m
    WHERE m.image_id = i.id AND m.removed_at IS NULL
    AND m.repository_id IN (SELECT r.id FROM lifecycle_repository r WHERE {visible})
)"""
_TAGGED: Final = """EXISTS (
    SELECT FROM lifecycle_tag t
    WHERE t.image_id = i.id AND t.name = %s
    AND t.repository_id IN (SELECT r.id FROM lifecycle_repository r WHERE {visible})
)"""
# The page first, and then its columns: otherwise they would be computed for every row before the limit.
_IMAGES: Final = "SELECT i.id, {columns} FROM (SELECT i.id FROM lifecycle_image i WHERE {conditions} ORDER BY i.id DESC LIMIT %s) page JOIN lifecycle_image i ON i.id = page.id ORDER BY i.id DESC"  # noqa: E501 -- one statement


def images_page(
    actor: User, *, repository: str = "", tag: str = "", below: int | None = None, limit: int
) -> list[tuple[int, dict[str, Any]]]:
    """Return up to `limit` (id, row) of the images that `actor` can see, newest first, in one statement.

    The images and filters are those of `queries.images_with_places`; `below` is the id of the last row of the page
    before. A row has the fields of IMAGE_COLUMNS.
    """
    visible, values = visible_sql(actor, Verb.IMAGE_VIEW, "r")
    named, named_values = (f"{visible} AND r.name = %s", [*values, repository]) if repository else (visible, values)
    conditions, parameters = [_IN_REPOSITORY.format(visible=named)], [*values, *named_values]
    if tag:
        conditions.append(_TAGGED.format(visible=named))
        parameters += [tag, *named_values]
    if below is not None:
        conditions.append("i.id < %s")
        parameters.append(below)
    columns = ", ".join(IMAGE_COLUMNS.values()).replace("{places}", _PLACES.format(visible=visible))
    statement = _IMAGES.replace("{columns}", columns).replace("{conditions}", " AND ".join(conditions))
    return _rows(statement, [*parameters, limit], tuple(IMAGE_COLUMNS))


def _rows(statement: str, parameters: list[Any], names: tuple[str, ...]) -> list[tuple[int, dict[str, Any]]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [(row[0], dict(zip(names, row[1:], strict=True))) for row in cursor.fetchall()]
