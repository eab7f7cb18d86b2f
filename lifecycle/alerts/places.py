"""Where findings are, and whose they are: images in use, by the team that owns the layer at fault.

An image is in use while a tag points to it, an environment has it, or a cluster runs it. A package in the
layers of a base image belongs to the team of that base, as long as an image of the base's repository has the finding
too. Then the images built on the base wait for it. Once the base is fixed, the finding belongs to the teams whose
images still have it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from lifecycle.evidence.open_findings import CLOSED_SQL, not_suppressed_sql

# (label, package version) pairs -> everything about the images with them. Each inventory is read once, and labels with
# the same inventories are judged once (`shape`): a thousand advisories for one base cost about as much as one.
_JUDGED: Final = """
WITH RECURSIVE pair AS MATERIALIZED (
    SELECT * FROM unnest(%(labels)s::text[], %(packages)s::bigint[], %(names)s::text[])
                  AS pair(label, package_id, vulnerability)
), hit AS MATERIALIZED (
    SELECT pair.label, pair.package_id, ip.inventory_id
    FROM pair JOIN lifecycle_inventorypackage ip ON ip.package_id = pair.package_id
), cleared AS MATERIALIZED (
    -- Images in which the finding is closed (VEX, waivers) in each of the label's packages that they have.
    SELECT DISTINCT pair.label, effect.image_id
    FROM pair JOIN {closed} effect
      ON (effect.package_id, effect.vulnerability) = (pair.package_id, pair.vulnerability)
    WHERE NOT EXISTS (
        SELECT FROM lifecycle_imageinventory ii
        JOIN lifecycle_inventorypackage ip ON ip.inventory_id = ii.inventory_id
        JOIN pair other ON other.package_id = ip.package_id AND other.label = pair.label
        WHERE ii.image_id = effect.image_id AND {open}
    )
), labelled AS MATERIALIZED (
    SELECT hit.label, array_agg(DISTINCT hit.inventory_id ORDER BY hit.inventory_id) AS inventories,
           ARRAY(SELECT image_id FROM cleared WHERE cleared.label = hit.label ORDER BY image_id) AS excluded
    FROM hit GROUP BY hit.label
), shape AS MATERIALIZED (
    SELECT row_number() OVER () AS id, inventories, excluded
    FROM (SELECT DISTINCT inventories, excluded FROM labelled) each_once
), excluded AS MATERIALIZED (
    SELECT shape.id AS shape, inside.image_id FROM shape, unnest(shape.excluded) AS inside(image_id)
), member AS MATERIALIZED (
    SELECT shape.id AS shape, inside.inventory_id FROM shape, unnest(shape.inventories) AS inside(inventory_id)
), carrier AS MATERIALIZED (
    SELECT ii.image_id, ii.inventory_id, min(ii.layer_position) AS position
    FROM (SELECT DISTINCT inventory_id FROM member) shared
    CROSS JOIN LATERAL (
        SELECT image_id, inventory_id, layer_position FROM lifecycle_imageinventory
        WHERE inventory_id = shared.inventory_id OFFSET 0
    ) ii
    GROUP BY ii.image_id, ii.inventory_id
), top AS MATERIALIZED (
    SELECT image_id, image_id AS top_id FROM carrier
    UNION SELECT carrier.image_id, entry.index_id FROM carrier
    JOIN lifecycle_indexentry entry ON entry.child_id = carrier.image_id
), used AS MATERIALIZED (
    SELECT DISTINCT place.image_id, home.id AS repository_id, home.team_id
    FROM (
        SELECT top.image_id, tag.repository_id FROM top JOIN lifecycle_tag tag ON tag.image_id = top.top_id
        UNION SELECT top.image_id, slot.repository_id FROM top JOIN lifecycle_slot slot ON slot.image_id = top.top_id
        UNION SELECT top.image_id, running.repository_id FROM top
            JOIN lifecycle_runningimage running ON running.image_id = top.top_id AND running.until IS NULL
            WHERE running.repository_id IS NOT NULL
    ) place
    JOIN lifecycle_repository held ON held.id = place.repository_id
    JOIN lifecycle_repository home ON home.id = coalesce(held.source_id, held.id)
), edge AS MATERIALIZED (
    SELECT DISTINCT ON (derived.image_id) derived.image_id, d.base_id
    FROM (SELECT DISTINCT image_id FROM used) derived
    JOIN lifecycle_derivation d ON d.derived_id = derived.image_id AND 'layers' = ANY(d.evidence)
    JOIN lifecycle_image base ON base.id = d.base_id
    ORDER BY derived.image_id, base.layer_count DESC, base.id
), up(start, base_id) AS (
    SELECT DISTINCT base_id, base_id FROM edge
    UNION
    SELECT up.start, d.base_id FROM up
    JOIN lifecycle_derivation d ON d.derived_id = up.base_id AND 'layers' = ANY(d.evidence)
), base AS MATERIALIZED (
    -- The home of a base is the repository that had it first. A copy elsewhere is not its source.
    SELECT image.id, image.layer_count, home.repository_id, home.team_id
    FROM (SELECT DISTINCT base_id FROM up) wanted
    JOIN lifecycle_image image ON image.id = wanted.base_id
    CROSS JOIN LATERAL (
        SELECT held.repository_id, repository.team_id FROM lifecycle_repositoryimage held
        JOIN lifecycle_repository repository ON repository.id = held.repository_id
        WHERE held.removed_at IS NULL AND repository.source_id IS NULL AND repository.environment_id IS NULL
          AND held.image_id IN (
              SELECT image.id UNION ALL
              SELECT entry.index_id FROM lifecycle_indexentry entry WHERE entry.child_id = image.id
          )
        ORDER BY held.id LIMIT 1
    ) home
), home_affected AS MATERIALIZED (
    SELECT DISTINCT member.shape, used.repository_id
    FROM member JOIN carrier USING (inventory_id) JOIN used USING (image_id)
    WHERE NOT EXISTS (SELECT FROM excluded x WHERE (x.shape, x.image_id) = (member.shape, carrier.image_id))
), line AS MATERIALIZED (
    SELECT DISTINCT carrier.inventory_id, carrier.position, edge.base_id AS start
    FROM carrier JOIN edge USING (image_id)
), brought AS MATERIALIZED (
    -- Of the bases with the layer whose repository still has the finding, the one with the fewest layers: the others
    -- only pass it on.
    SELECT DISTINCT ON (member.shape, line.inventory_id, line.position, line.start)
           member.shape, line.inventory_id, line.position, line.start, base.repository_id, base.team_id
    FROM member JOIN line USING (inventory_id)
    JOIN up ON up.start = line.start
    JOIN base ON base.id = up.base_id AND base.layer_count > line.position
    JOIN home_affected ON (home_affected.shape, home_affected.repository_id) = (member.shape, base.repository_id)
    ORDER BY member.shape, line.inventory_id, line.position, line.start, base.layer_count, base.id
), judged AS MATERIALIZED (
    -- It is the image's own if any of its inventories is. Else `base_team` is the team that brings it.
    SELECT member.shape, carrier.image_id,
           bool_or(brought.shape IS NULL OR own.image_id IS NOT NULL) AS is_own, min(brought.team_id) AS base_team,
           array_agg(carrier.inventory_id) FILTER (WHERE brought.shape IS NULL OR own.image_id IS NOT NULL)
               AS own_inventories,
           array_agg(brought.repository_id) FILTER (WHERE brought.shape IS NOT NULL) AS base_repositories
    FROM member JOIN carrier USING (inventory_id)
    LEFT JOIN edge USING (image_id)
    LEFT JOIN brought ON (brought.shape, brought.inventory_id, brought.position, brought.start)
                       = (member.shape, carrier.inventory_id, carrier.position, edge.base_id)
    LEFT JOIN used own ON (own.image_id, own.repository_id) = (carrier.image_id, brought.repository_id)
    WHERE NOT EXISTS (SELECT FROM excluded x WHERE (x.shape, x.image_id) = (member.shape, carrier.image_id))
    GROUP BY member.shape, carrier.image_id
)
""".replace("{open}", not_suppressed_sql("ii.image_id", "other.package_id", "other.vulnerability")).replace(
    "{closed}", CLOSED_SQL
)
_PLACES: Final = f"""
{_JUDGED}, called AS MATERIALIZED (
    -- Repositories of the bases that images of interest wait for.
    SELECT DISTINCT judged.shape, waited.repository_id
    FROM judged, unnest(judged.base_repositories) AS waited(repository_id)
    WHERE NOT judged.is_own AND judged.image_id = ANY(%(within)s::bigint[])
), counted AS MATERIALIZED (
    SELECT judged.shape, used.team_id, used.repository_id, used.image_id, judged.own_inventories
    FROM judged JOIN used USING (image_id)
    WHERE judged.is_own AND (
        %(within)s::bigint[] IS NULL OR judged.image_id = ANY(%(within)s::bigint[])
        OR (judged.shape, used.repository_id) IN (SELECT shape, repository_id FROM called)
    )
), owned AS MATERIALIZED (
    SELECT shape, team_id, repository_id, count(*) AS images FROM counted GROUP BY shape, team_id, repository_id
), distinct_images AS (
    SELECT shape, team_id, count(DISTINCT image_id) AS images FROM counted GROUP BY shape, team_id
), waiting AS (
    SELECT judged.shape, judged.base_team AS team_id, count(*) AS images
    FROM judged WHERE NOT judged.is_own AND EXISTS (SELECT FROM used WHERE used.image_id = judged.image_id)
      AND (%(within)s::bigint[] IS NULL OR judged.image_id = ANY(%(within)s::bigint[]))
    GROUP BY judged.shape, judged.base_team
), place AS MATERIALIZED (
    SELECT owned.shape, owned.team_id, array_agg(owned.repository_id ORDER BY owned.repository_id) AS repositories,
           array_agg(owned.images::int ORDER BY owned.repository_id) AS counts
    FROM owned GROUP BY owned.shape, owned.team_id
), own_inventory AS MATERIALIZED (
    SELECT DISTINCT counted.shape, counted.team_id, inside.inventory_id
    FROM (SELECT DISTINCT shape, team_id, own_inventories FROM counted) counted,
         unnest(counted.own_inventories) AS inside(inventory_id)
), labelled_shape AS MATERIALIZED (
    SELECT labelled.label, shape.id AS shape FROM labelled JOIN shape USING (inventories, excluded)
), held AS MATERIALIZED (
    -- The package versions of each label in layers of the team's own.
    SELECT labelled_shape.label, own_inventory.team_id, array_agg(DISTINCT hit.package_id) AS packages
    FROM labelled_shape JOIN own_inventory USING (shape)
    JOIN hit ON (hit.label, hit.inventory_id) = (labelled_shape.label, own_inventory.inventory_id)
    GROUP BY labelled_shape.label, own_inventory.team_id
)
SELECT labelled_shape.label, place.team_id, place.repositories, place.counts, distinct_images.images,
       coalesce(waiting.images, 0), held.packages
FROM labelled_shape JOIN place USING (shape)
JOIN distinct_images ON (distinct_images.shape, distinct_images.team_id) = (place.shape, place.team_id)
JOIN held ON (held.label, held.team_id) = (labelled_shape.label, place.team_id)
LEFT JOIN waiting ON (waiting.shape, waiting.team_id) = (place.shape, place.team_id)
"""  # noqa: S608 -- only constants of this module are inserted
# Where the affected images run: those of the team, and those of all teams that wait for its base.
_RADIUS: Final = f"""
{_JUDGED}, labelled_shape AS MATERIALIZED (
    SELECT labelled.label, shape.id AS shape FROM labelled JOIN shape USING (inventories, excluded)
), affected AS MATERIALIZED (
    SELECT judged.shape, judged.image_id, used.team_id FROM judged JOIN used USING (image_id) WHERE judged.is_own
    UNION SELECT shape, image_id, base_team FROM judged WHERE NOT is_own
), running AS MATERIALIZED (
    SELECT DISTINCT affected.shape, affected.team_id, affected.image_id, live.id
    FROM affected JOIN lifecycle_runningimage live ON live.until IS NULL AND live.platform_id = affected.image_id
    UNION
    SELECT DISTINCT affected.shape, affected.team_id, affected.image_id, live.id
    FROM affected JOIN top USING (image_id)
    JOIN lifecycle_runningimage live ON live.until IS NULL AND live.platform_id IS NULL AND live.image_id = top.top_id
), counted AS (
    SELECT running.shape, running.team_id, count(DISTINCT running.image_id) AS images
    FROM running GROUP BY running.shape, running.team_id
), placed AS (
    SELECT once.shape, once.team_id, count(DISTINCT live.cluster_id) AS clusters,
           count(DISTINCT (live.cluster_id, live.namespace)) AS namespaces,
           count(DISTINCT (live.cluster_id, live.namespace, live.workload_kind, live.workload_name)) AS workloads,
           sum(live.containers) AS containers,
           count(DISTINCT coalesce(repository.team_id, cluster.team_id)) AS teams
    FROM (SELECT DISTINCT shape, team_id, id FROM running) once
    JOIN lifecycle_runningimage live ON live.id = once.id
    JOIN lifecycle_cluster cluster ON cluster.id = live.cluster_id
    LEFT JOIN lifecycle_repository repository ON repository.id = live.repository_id
    GROUP BY once.shape, once.team_id
)
SELECT labelled_shape.label, placed.team_id, placed.clusters, placed.namespaces, placed.workloads, placed.containers,
       placed.teams, counted.images
FROM labelled_shape JOIN placed USING (shape)
JOIN counted ON (counted.shape, counted.team_id) = (placed.shape, placed.team_id)
"""  # noqa: S608 -- only constants of this module are inserted
_IMAGES: Final = """
{judged}
SELECT image.id, image.digest, repository.name, repository_team.slug, judged.is_own
FROM judged JOIN used USING (image_id)
JOIN lifecycle_image image ON image.id = judged.image_id
JOIN lifecycle_repository repository ON repository.id = used.repository_id
JOIN accounts_team repository_team ON repository_team.id = repository.team_id
WHERE {which} AND {visible}
ORDER BY repository.name, image.id
LIMIT %(limit)s
"""


RADIUS: Final = ("clusters", "namespaces", "workloads", "containers", "teams", "images")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a finding is for one team: its own repositories with the number of affected images in use."""

    label: str
    team_id: int
    repositories: dict[int, int]
    images: int
    waiting: int  # images built on these that wait for them; of all teams
    packages: tuple[int, ...]  # the package versions in layers of the team's own


@dataclass(frozen=True, slots=True)
class AffectedImage:
    """An affected image in a repository of the reader. Unless `is_own`, it waits for its base."""

    image_id: int
    digest: str
    repository: str
    team: str
    is_own: bool


def places_of(
    pairs: Iterable[tuple[str, int]],
    *,
    within: Collection[int] | None = None,
    names: Mapping[str, str] | None = None,
    with_decided: bool = False,
) -> list[Place]:
    """Return where the package versions of each label are in use, by owning team. One query for any number.

    A label is the name of a vulnerability, or `names` has that name. Images in which a VEX statement suppresses it do
    not count, unless `with_decided`. With `within`, only these images count, and those in the repositories of bases
    that one of them waits for.
    """
    labels, packages = _columns(pairs)
    if not labels:
        return []
    with connection.cursor() as cursor:
        ids = None if within is None else list(within)
        known = [(names or {}).get(label, label) for label in labels]
        if with_decided:
            known = [""] * len(labels)  # no statement is about this name
        cursor.execute(_PLACES, {"labels": labels, "packages": packages, "names": known, "within": ids})
        rows = cursor.fetchall()
    return [
        Place(label, team, dict(zip(repositories, counts, strict=True)), images, waiting, tuple(packages))
        for label, team, repositories, counts, images, waiting, packages in rows
    ]


def blast_radius(pairs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], dict[str, int]]:
    """Return {(vulnerability, team id): where its images and those that wait for them run}, where any runs. One query.

    The counts are {clusters, namespaces, workloads, containers, teams, images}.
    """
    labels, packages = _columns(pairs)
    if not labels:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_RADIUS, {"labels": labels, "packages": packages, "names": labels})
        return {
            (label, team_id): dict(zip(RADIUS, (int(count) for count in counts), strict=True))
            for label, team_id, *counts in cursor.fetchall()
        }


def affected_images(
    vulnerability: str,
    package_ids: Iterable[int],
    team_id: int,
    visible: tuple[str, list[Any]],
    *,
    waiting: bool,
    limit: int,
) -> list[AffectedImage]:
    """Return the images of a team with these package versions, or those of all teams that wait for the team.

    `visible` is the condition for what the reader can see, over `repository` (authority.covers.visible_sql).
    """
    ids = list(package_ids)
    which = "NOT judged.is_own AND judged.base_team = %(team)s" if waiting else (
        "judged.is_own AND used.team_id = %(team)s"
    )  # fmt: skip
    condition, values = visible
    named = {f"visible_{number}": value for number, value in enumerate(values)}
    condition = condition.replace("%s", "{}").format(*(f"%({name})s" for name in named))
    sql = _IMAGES.format(judged=_JUDGED, which=which, visible=condition)
    parameters = {
        "labels": [vulnerability] * len(ids), "names": [vulnerability] * len(ids), "packages": ids,
        "team": team_id, "limit": limit, **named,
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [AffectedImage(*row) for row in cursor.fetchall()]


def _columns(pairs: Iterable[tuple[str, int]]) -> tuple[list[str], list[int]]:
    found = sorted(set(pairs))
    return [label for label, _ in found], [package_id for _, package_id in found]
