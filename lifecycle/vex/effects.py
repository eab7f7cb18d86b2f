"""Which statement counts for each finding of an image: the newest one that is about it, else one about its base."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from lifecycle.registry.models import Image, IndexEntry, Repository, RepositoryImage
from lifecycle.sbom.models import InventoryPackage, PackageVersion
from lifecycle.trust.queries import live_sources_of_all, teams_trusting
from lifecycle.vex.models import VexDocument, VexEffect, VexStatement
from lifecycle.vex.products import Package, Target, any_applies, names_package
from lifecycle.vex.types import Product

BATCH: Final = 2000  # images
_Key = tuple[int, int, str]  # image, package version, vulnerability

# What live statements name. Images share inventories, so each inventory is read once, and each package once.
_NAMED: Final = """
WITH carried AS MATERIALIZED (
    SELECT DISTINCT image_id, inventory_id FROM lifecycle_imageinventory WHERE image_id = ANY(%(ids)s)
),
held AS MATERIALIZED (
    SELECT shared.inventory_id, inside.package_id
    FROM (SELECT DISTINCT inventory_id FROM carried) shared
    CROSS JOIN LATERAL (
        -- OFFSET 0 limits the planner to these inventories, as in evidence.risk.
        SELECT package_id FROM lifecycle_inventorypackage ip WHERE ip.inventory_id = shared.inventory_id OFFSET 0
    ) inside
),
named AS MATERIALIZED (
    SELECT DISTINCT m.package_id, a.vulnerability, s.id AS statement_id
    FROM (SELECT DISTINCT package_id FROM held) package
    JOIN lifecycle_match m ON m.package_id = package.package_id AND m.valid_to IS NULL
    JOIN lifecycle_advisory a ON a.id = m.advisory_id
    JOIN lifecycle_vexstatement s
      ON s.state = %(state)s AND (s.until IS NULL OR s.until > now())
     AND s.names && (a.aliases || ARRAY[a.osv_id, a.vulnerability]::varchar[])
)
SELECT DISTINCT carried.image_id, named.package_id, named.vulnerability, named.statement_id
FROM carried JOIN held USING (inventory_id) JOIN named USING (package_id)
"""
_NAMED_PACKAGES: Final = """
SELECT package_id FROM lifecycle_vexeffect WHERE package_id = ANY(%(ids)s)
UNION
SELECT m.package_id FROM lifecycle_match m
JOIN lifecycle_advisory a ON a.id = m.advisory_id
JOIN lifecycle_vexstatement s
  ON s.state = %(state)s AND s.names && (a.aliases || ARRAY[a.osv_id, a.vulnerability]::varchar[])
WHERE m.package_id = ANY(%(ids)s) AND m.valid_to IS NULL
"""
# A base that only a label claims does not count: its owner could be anybody.
_BASES: Final = """
WITH RECURSIVE up(root, id, depth) AS (
    SELECT id, id, 0 FROM unnest(%(ids)s::bigint[]) AS id
    UNION
    SELECT up.root, edge.base_id, up.depth + 1
    FROM up JOIN lifecycle_derivation edge ON edge.derived_id = up.id AND edge.confidence IN ('high', 'medium')
    WHERE up.depth < 50
)
SELECT root, id, min(depth) FROM up WHERE depth > 0 GROUP BY root, id ORDER BY root, min(depth), id
"""
# One part for each way to name a record: each has its index.
_ABOUT: Final = """
WITH said AS (SELECT DISTINCT unnest(names) AS name FROM lifecycle_vexstatement WHERE id = ANY(%s)),
record AS (
    SELECT a.id FROM said JOIN lifecycle_advisory a ON a.vulnerability = said.name
    UNION SELECT a.id FROM said JOIN lifecycle_advisory a ON a.osv_id = said.name
    UNION SELECT n.advisory_id FROM said JOIN lifecycle_advisoryname n ON n.name = said.name AND n.kind = 'alias'
)
SELECT DISTINCT m.package_id FROM record JOIN lifecycle_match m ON m.advisory_id = record.id AND m.valid_to IS NULL
"""

_IN_SCOPE: Final = """
WITH RECURSIVE said AS (SELECT * FROM lifecycle_vexstatement WHERE id = ANY(%s)),
place AS (
    SELECT image.id FROM said JOIN lifecycle_image image ON image.digest = said.digest WHERE said.scope = 'digest'
    UNION
    SELECT held.image_id FROM said
    JOIN lifecycle_repository repository
      ON (said.scope = 'repository' AND said.repository_id IN (repository.id, repository.source_id))
      OR (said.scope = 'team' AND repository.team_id = said.team_id)
    JOIN lifecycle_repositoryimage held ON held.repository_id = repository.id
),
down(id) AS (
    SELECT id FROM place
    UNION
    SELECT entry.child_id FROM place JOIN lifecycle_indexentry entry ON entry.index_id = place.id
    UNION
    SELECT edge.derived_id FROM down JOIN lifecycle_derivation edge ON edge.base_id = down.id
)
SELECT down.id FROM down JOIN lifecycle_image image ON image.id = down.id
WHERE image.kind = 'manifest' AND image.scanned_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image is, as far as scopes and products can name it."""

    target: Target
    repository_id: int | None  # of its home: the source repository that had it first
    team_id: int | None


def is_in_use() -> bool:
    """Return whether a statement counts or counted, so that findings of images can depend on one. One query."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM lifecycle_vexstatement WHERE state = 'live')"
            " OR EXISTS (SELECT FROM lifecycle_vexeffect)"
        )
        found: bool = cursor.fetchone()[0]
    return found


def packages_named(package_ids: Collection[int]) -> set[int]:
    """Return those of these package versions about which a statement says something, or said something until now."""
    if not package_ids or not is_in_use():
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_NAMED_PACKAGES, {"ids": list(package_ids), "state": VexStatement.State.LIVE})
        return {row[0] for row in cursor.fetchall()}


def packages_about(statement_ids: Collection[int]) -> set[int]:
    """Return the package versions with a live match of a vulnerability that one of these statements names."""
    with connection.cursor() as cursor:
        cursor.execute(_ABOUT, [list(statement_ids)])
        return {row[0] for row in cursor.fetchall()}


def images_affected_by(statement_ids: Collection[int]) -> set[int]:
    """Return the images for which one of these statements counts now."""
    return set(VexEffect.objects.filter(statement__in=statement_ids).values_list("image_id", flat=True).distinct())


def split_by_scope(statement_ids: Collection[int]) -> tuple[list[int], list[int]]:
    """Return (those that are decisions about a digest, a repository or a team; the others)."""
    rows = VexStatement.objects.filter(pk__in=statement_ids).order_by("pk").values_list("pk", "scope")
    near: list[int] = []
    far: list[int] = []
    for pk, scope in rows:
        (near if scope in {"digest", "repository", "team"} else far).append(pk)
    return near, far


def images_in_scope(statement_ids: Collection[int]) -> set[int]:
    """Return the platform manifests in the scope of these decisions, and all that are built on them."""
    with connection.cursor() as cursor:
        cursor.execute(_IN_SCOPE, [list(statement_ids)])
        return {row[0] for row in cursor.fetchall()}


def with_descendants(image_ids: Collection[int]) -> set[int]:
    """Return these platform manifests, and all that are built on them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE down(id) AS (SELECT unnest(%s::bigint[]) UNION"
            " SELECT edge.derived_id FROM down JOIN lifecycle_derivation edge ON edge.base_id = down.id)"
            " SELECT id FROM down",
            [list(image_ids)],
        )
        return {row[0] for row in cursor.fetchall()}


def with_platforms(image_ids: Collection[int]) -> set[int]:
    """Return these images, and the platform manifests of those that are indexes."""
    children = IndexEntry.objects.filter(index__in=image_ids).values_list("child_id", flat=True)
    return {*image_ids, *children}


def refresh(image_ids: Collection[int]) -> None:
    """Find again which statement counts for each finding of these platform manifests, and store it.

    Runs in the caller's transaction. About ten queries, and one when there is no statement at all.
    """
    ids = sorted(set(image_ids))
    if not ids or not is_in_use():
        return
    named: dict[_Key, list[int]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_NAMED, {"ids": ids, "state": VexStatement.State.LIVE})
        for image_id, package_id, vulnerability, statement_id in cursor.fetchall():
            named[image_id, package_id, vulnerability].append(statement_id)
    wanted = _decide(named) if named else {}
    stored = {(row.image_id, row.package_id, row.vulnerability): row for row in VexEffect.objects.filter(image__in=ids)}
    gone = [row.pk for key, row in stored.items() if wanted.get(key) != (row.statement_id, row.inherited_from_id)]
    if gone:
        VexEffect.objects.filter(pk__in=gone).delete()
    left = {key for key, row in stored.items() if row.pk not in set(gone)}
    statements = VexStatement.objects.in_bulk({statement for statement, _ in wanted.values()})
    VexEffect.objects.bulk_create(
        [
            VexEffect(
                image_id=key[0], package_id=key[1], vulnerability=key[2], statement_id=statement_id,
                inherited_from_id=base_id, suppresses=statements[statement_id].suppresses,
            )
            for key, (statement_id, base_id) in wanted.items()
            if key not in left
        ],
        batch_size=2000,
        ignore_conflicts=True,  # two refreshes at once write the same
    )  # fmt: skip


def advice_for(image_id: int) -> dict[tuple[int, str], int]:
    """Return {(package version, vulnerability): the statement of a document that is only advice}, for one manifest.

    It changes nothing. One query when there is no advice.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM lifecycle_vexstatement WHERE state = 'advice')")
        if not cursor.fetchone()[0]:
            return {}
        cursor.execute(_NAMED, {"ids": [image_id], "state": VexStatement.State.ADVICE})
        named: dict[_Key, list[int]] = defaultdict(list)
        for image, package_id, vulnerability, statement_id in cursor.fetchall():
            named[image, package_id, vulnerability].append(statement_id)
    return {(key[1], key[2]): statement_id for key, (statement_id, _) in _decide(named).items()} if named else {}


def _decide(named: Mapping[_Key, Collection[int]]) -> dict[_Key, tuple[int, int | None]]:
    """Return {finding: (the statement that counts, the base that it is about)}. About itself goes before its base's."""
    ids = {statement_id for found in named.values() for statement_id in found}
    statements = {
        row.pk: row
        for row in VexStatement.objects.filter(pk__in=ids).select_related("document__image").defer("document__content")
    }
    products = {pk: tuple(_product(each) for each in row.products) for pk, row in statements.items()}
    trusted = _trust_of({row.document_id for row in statements.values() if row.document_id is not None})
    packages = {
        row.pk: Package(row.purl, row.source_name, row.source_version, row.version)
        for row in PackageVersion.objects.filter(pk__in={key[1] for key in named})
    }
    images = {key[0] for key in named}
    bases = _bases_of(images) if any(row.document_id is None for row in statements.values()) else {}
    places = _places({*images, *(pk for found in bases.values() for pk in found)})
    brought = _brought(bases, {key[1] for key in named})
    vouched = _vouched(places) if bases else {}
    wanted: dict[_Key, tuple[int, int | None]] = {}
    for key, candidates in named.items():
        image_id, package_id, _ = key
        newest = sorted((statements[pk] for pk in candidates), key=lambda row: (row.said_at, row.pk), reverse=True)
        package = packages[package_id]
        for base_id in (None, *(pk for pk in bases.get(image_id, ()) if package_id in brought.get(pk, ()))):
            place = places[image_id if base_id is None else base_id]
            if base_id is not None and not _may_be_heard(place, places[image_id].team_id, vouched):
                continue
            found = next(
                (
                    row
                    for row in newest
                    if _is_for(row, place, trusted) and _is_about(row, products[row.pk], place, package, base_id)
                ),
                None,
            )
            if found is not None:
                wanted[key] = (found.pk, base_id)
                break
    return wanted


def _may_be_heard(base: _Place, team_id: int | None, vouched: Mapping[int, set[int | None]]) -> bool:
    """Return whether the owner of a base decides for the images of a team: its own, or one that the team trusts.

    Layers are no proof of an owner: anybody can push the layers of a public base, and would own that copy.
    """
    is_own = base.team_id is not None and base.team_id == team_id
    trusting = vouched.get(base.repository_id, set()) if base.repository_id is not None else set()
    return is_own or bool(trusting & {None, team_id})


def _vouched(places: Mapping[int, _Place]) -> dict[int, set[int | None]]:
    """Return {repository: the teams whose trusted sources name its place; None among them: all teams}."""
    ids = {place.repository_id for place in places.values() if place.repository_id is not None}
    return teams_trusting(Repository.objects.filter(pk__in=ids).select_related("registry"))


def _trust_of(document_ids: Collection[int]) -> defaultdict[int, set[int | None]]:
    """Return {signed document: the teams whose trusted sources name its signers; None among them: all teams}."""
    signed = VexDocument.signers.through.objects.filter(vexdocument__in=document_ids).values_list(
        "vexdocument_id", "trustedsigner__source_id"
    )
    pairs = list(signed)
    sources = {
        row.pk: {None} if row.is_site_wide else {team.pk for team in row.teams.all()}
        for row in live_sources_of_all().filter(pk__in={source for _, source in pairs})
    }
    trusted: defaultdict[int, set[int | None]] = defaultdict(set)
    for document_id, source_id in pairs:
        trusted[document_id] |= sources.get(source_id, set())
    return trusted


def _is_for(row: VexStatement, place: _Place, trusted: Mapping[int, set[int | None]]) -> bool:
    """Return whether a statement can be about an image: whoever accepted or signed its document is trusted there."""
    document = row.document
    if document is None:
        return True
    if document.team_id not in {None, place.team_id}:
        return False
    if document.image is not None and document.image.digest not in place.target.digests:
        return False
    is_advice = row.state != VexStatement.State.LIVE
    return is_advice or document.accepted_by_id is not None or bool(trusted[document.pk] & {None, place.team_id})


def _is_about(
    row: VexStatement, products: Collection[Product], place: _Place, package: Package, base_id: int | None
) -> bool:
    """Return whether a statement is about this package in this image, or in its base `base_id`."""
    if row.document is not None:
        return base_id is None and any_applies(products, place.target, package)
    if row.package and not names_package(row.package, package):
        return False
    covers = {
        # The repository too: whoever pushes an index that names a copied manifest owns the index, and not the manifest.
        VexStatement.Scope.DIGEST: row.digest in place.target.digests and row.repository_id == place.repository_id,
        VexStatement.Scope.REPOSITORY: row.repository_id == place.repository_id,
        VexStatement.Scope.TEAM: row.team_id == place.team_id,
        VexStatement.Scope.ALL: base_id is None,  # it is about the image itself
    }
    return covers[VexStatement.Scope(row.scope)]


def _product(value: Mapping[str, Any]) -> Product:
    return Product(tuple(value.get("digests", ())), value.get("purl", ""), tuple(value.get("packages", ())))


def _bases_of(image_ids: Collection[int]) -> dict[int, list[int]]:
    """Return {image: its bases, nearest first}."""
    found: dict[int, list[int]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_BASES, {"ids": list(image_ids)})
        for root, base, _ in cursor.fetchall():
            if base != root:
                found[root].append(base)
    return found


def _brought(bases: Mapping[int, Iterable[int]], package_ids: Collection[int]) -> dict[int, set[int]]:
    """Return {base: those of these package versions that it has}."""
    ids = {pk for found in bases.values() for pk in found}
    if not ids:
        return {}
    image = "inventory__image_inventories__image"
    rows = InventoryPackage.objects.filter(package__in=package_ids, **{f"{image}__in": ids})
    brought: dict[int, set[int]] = defaultdict(set)
    for base, package in rows.values_list(image, "package_id").distinct():
        brought[base].add(package)
    return brought


def _places(image_ids: Collection[int]) -> dict[int, _Place]:
    images = Image.objects.filter(pk__in=image_ids).values_list("pk", "digest", "architecture")
    digests: dict[int, set[str]] = {}
    architectures: dict[int, str] = {}
    for pk, digest, architecture in images:
        digests[pk], architectures[pk] = {digest}, architecture
    for child, digest in IndexEntry.objects.filter(child__in=image_ids).values_list("child_id", "index__digest"):
        digests[child].add(digest)
    names: dict[int, set[str]] = defaultdict(set)
    homes: dict[int, tuple[int, int]] = {}
    rows = RepositoryImage.objects.filter(image__in=image_ids, removed_at=None).order_by("pk")
    for row in rows.select_related("repository__registry"):
        place = row.repository
        names[row.image_id].add(f"{place.registry.host}/{place.name}")
        homes.setdefault(row.image_id, (place.source_id or place.pk, place.team_id))
    return {
        pk: _Place(
            Target(frozenset(digests[pk]), frozenset(names[pk]), architectures[pk]), *homes.get(pk, (None, None))
        )
        for pk in digests
    }


def home_of(image: Image) -> int | None:
    """Return the id of the source repository that had an image first: its owner decides about it."""
    rows = RepositoryImage.objects.filter(image=image, removed_at=None).order_by("pk").select_related("repository")
    first = rows.first()
    return None if first is None else first.repository.source_id or first.repository_id
