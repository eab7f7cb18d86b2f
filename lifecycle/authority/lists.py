"""The list of images that machines read often, in one SQL statement, as rows without models."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection

from accounts.models import User
from lifecycle.authority.covers import open_sql


class ListedImage(NamedTuple):
    """One image of the list. The fields are those of `Image`, and the repositories and tags that the reader can see."""

    id: int
    digest: str
    places: list[dict[str, Any]]  # [{"repository": name, "tags": [name, ...]}], by name
    kind: str
    media_type: str
    platform: str
    size_bytes: int
    distro: str
    labels: Any
    annotations: Any
    base_name: str
    base_digest: str
    created_at: datetime | None
    first_seen_at: datetime
    scanned_at: datetime | None
    scan_problem: str
    package_count: int
    dropped_count: int
    unjudged_count: int
    unjudged_reasons: dict[str, int] | None
    finding_count: int
    critical_count: int
    high_count: int
    medium_count: int
    low_count: int
    unknown_count: int
    fixable_count: int


_PLACES: Final = """(SELECT coalesce(json_agg(json_build_object('repository', r.name, 'tags', ARRAY(
    SELECT t.name FROM lifecycle_tag t WHERE t.image_id = i.id AND t.repository_id = r.id ORDER BY t.name COLLATE "C"
)) ORDER BY r.name, m.id), '[]')
FROM lifecycle_repositoryimage m JOIN lifecycle_repository r ON r.id = m.repository_id
WHERE m.image_id = i.id AND m.removed_at IS NULL AND {visible})"""
# Fields that are not a column of their own name in lifecycle_image as i. `::json` is parsed, and `jsonb` is not.
_COMPUTED: Final[Mapping[str, str]] = {
    "places": _PLACES,
    "platform": "concat_ws('/', nullif(i.os, ''), nullif(i.architecture, ''), nullif(i.variant, ''))",
    "labels": "i.labels::json",
    "annotations": "i.annotations::json",
    "unjudged_reasons": "i.unjudged_reasons::json",
    "finding_count": "i.critical_count + i.high_count + i.medium_count + i.low_count + i.unknown_count",
}
_COLUMNS: Final = ", ".join(_COMPUTED.get(name, f"i.{name}") for name in ListedImage._fields)
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
_IMAGES: Final = "SELECT {columns} FROM (SELECT i.id FROM lifecycle_image i WHERE {conditions} ORDER BY i.id DESC LIMIT %s) page JOIN lifecycle_image i ON i.id = page.id ORDER BY i.id DESC"  # noqa: E501 -- one statement


def images_page(
    actor: User, *, repository: str = "", tag: str = "", below: int | None = None, limit: int
) -> list[ListedImage]:
    """Return up to `limit` of the images that `actor` can see, newest first, in one statement.

    With `repository`, return only images in the repository of that name. With `tag`, return only images to which a tag
    of that name points. `below` is the id of the last row of the page before.
    """
    visible, values = open_sql(actor, "r")
    named, named_values = (f"{visible} AND r.name = %s", [*values, repository]) if repository else (visible, values)
    conditions, parameters = [_IN_REPOSITORY.format(visible=named)], [*values, *named_values]
    if tag:
        conditions.append(_TAGGED.format(visible=named))
        parameters += [tag, *named_values]
    if below is not None:
        conditions.append("i.id < %s")
        parameters.append(below)
    columns = _COLUMNS.replace("{visible}", visible)
    statement = _IMAGES.replace("{columns}", columns).replace("{conditions}", " AND ".join(conditions))
    with connection.cursor() as cursor:
        cursor.execute(statement, [*parameters, limit])
        return list(map(ListedImage._make, cursor.fetchall()))
