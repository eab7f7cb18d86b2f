"""Store the content of images. Each package version, and each set of them, is stored once for all its images."""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import orjson
from django.db import connection, transaction

from accounts.models import User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.authority.access import image_in, lock_repository
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, MalformedPurl
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image, Repository
from lifecycle.registry.platforms import platform_ids
from lifecycle.sbom import lists
from lifecycle.sbom.contents import Contents, LayerContents
from lifecycle.sbom.kinds import SCAN
from lifecycle.sbom.licences import Licences
from lifecycle.sbom.models import (
    ContentCheck,
    ContentSet,
    ImageContentSet,
    ImageInventory,
    ImageLicences,
    Inventory,
    PackageList,
    PackageVersion,
    Sbom,
)
from lifecycle.sbom.packages import Entry, Keys, Package, PackageKey, is_storable, key_of, key_of_row, with_epoch
from lifecycle.sbom.secret_rules import secret_rules
from lifecycle.versions import KEY_VERSION
from lifecycle.versions.coordinates import (
    RELEASE_MAX_CHARS,
    Coordinates,
    canonical,
    coordinates,
    coordinates_of,
    package_words,
    parse_purl,
)

_CHUNK: Final = 5000
_PAIRS: Final = 50_000  # rows of an inventory in one statement


@dataclass(frozen=True, slots=True)
class Content:
    """The packages of one image, and the document that lists them."""

    packages: Sequence[Package]
    distro: str = ""  # "debian-12"
    format: str = "import"
    tool: str = "import"
    document: bytes = b""
    problem: str = ""
    dropped_count: int = 0  # packages that the source names, but without a package URL
    contents: Contents | None = None  # what the check of the files found; None: they were not checked
    licences: Licences | None = None  # None: the source names none


@dataclass(slots=True)
class Stored:
    """The images and package versions that `store` added."""

    image_ids: list[int] = field(default_factory=list)
    new_package_ids: list[int] = field(default_factory=list)


@transaction.atomic
def store(
    contents: dict[int, Content], *, actor: User, replaces: bool = False, keys: Keys | None = None, publish: bool = True
) -> Stored:
    """Store the content of these images, in one transaction with a fixed number of statements.

    Images that are already scanned are not changed, unless the new content `replaces` the old one. An image with a
    brought SBOM keeps the content beside it (`sbom.lists`). Findings of known package versions appear with the commit;
    the matching of new ones is queued. A caller that matches them itself sets `publish` to False, and publishes
    ImagesScanned afterwards. `keys` are shared by the batches of one import.
    """
    beside = lists.images_with_lists(contents)
    for image_id in sorted(beside):
        _store_beside(image_id, contents[image_id], actor=actor, replaces=replaces)
    contents = {image_id: content for image_id, content in contents.items() if image_id not in beside}
    if replaces:
        _forget(contents)
    image_ids = list(
        Image.objects.select_for_update(no_key=True)
        .filter(pk__in=contents, scanned_at=None, kind=Image.Kind.MANIFEST)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    stored = Stored(image_ids)
    if not image_ids:
        return stored
    groups, scans = _read({image_id: contents[image_id] for image_id in image_ids}, keys or Keys())
    entries = set().union(*groups.values())
    ids, stored.new_package_ids = _store_package_versions({entry.key: entry.package for entry in entries})
    _store_groups(groups, ids)
    _record_scans(scans)
    _store_beyond_packages({image_id: contents[image_id] for image_id in image_ids})
    Sbom.objects.bulk_create([_sbom(image_id, contents[image_id]) for image_id in image_ids], ignore_conflicts=True)
    if publish:
        events.publish(events.ImagesScanned(tuple(image_ids), tuple(stored.new_package_ids), actor_id=actor.pk))
    return stored


def _store_beyond_packages(contents: Mapping[int, Content]) -> None:
    """Store what a scan found beyond packages: the checks of files, and the licences."""
    for image_id, content in contents.items():
        if content.contents is not None:
            store_contents(image_id, content.contents)
    ImageLicences.objects.bulk_create(
        [
            ImageLicences(image_id=image_id, licences=known.packages, undeclared_count=known.undeclared_count)
            for image_id, content in contents.items()
            if (known := content.licences) is not None
        ],
        ignore_conflicts=True,
    )


def _store_beside(image_id: int, content: Content, *, actor: User, replaces: bool) -> None:
    """Keep the content of our scan beside a brought SBOM of the image, and use it if no brought one is used."""
    image = lists.lock(image_id)
    if image is None or (not replaces and lists.own_list(image_id) is not None):
        return
    stored = store_list(image, content)
    ImageLicences.objects.filter(image=image_id).delete()
    _store_beyond_packages({image_id: content})
    made = _sbom(image_id, content)
    sbom, _ = Sbom.objects.get_or_create(
        image=image, digest=made.digest, defaults={"format": made.format, "tool": made.tool, "document": made.document}
    )
    used = lists.used_list(image_id)
    dropped_count = content.dropped_count + stored.unusable_count
    kept = lists.write(
        sbom,
        lists.Contents(stored.inventories, stored.package_count, dropped_count, content.distro, content.problem),
        kind=PackageList.Kind.OWN,
        kept_at=clock.now(),
    )
    PackageList.objects.filter(image=image_id, kind=PackageList.Kind.OWN).exclude(pk=kept.pk).delete()
    if used is None or used.kind == PackageList.Kind.OWN:
        lists.use(image_id, kept)
    events.publish(events.ImagesScanned((image_id,), tuple(stored.new_package_ids), actor_id=actor.pk))


@dataclass(frozen=True, slots=True)
class StoredList:
    """The stored packages of one SBOM: (inventory id, layer) of each group, and the counts."""

    inventories: list[tuple[int, int | None]]
    package_count: int
    unusable_count: int
    new_package_ids: tuple[int, ...]


def store_list(image: Image, content: Content) -> StoredList:
    """Store the packages of an SBOM of `image` without putting them in use. Call it in a transaction."""
    groups, scans = _read({image.pk: content}, Keys())
    entries = set().union(*groups.values()) if groups else set()
    ids, new_ids = _store_package_versions({entry.key: entry.package for entry in entries})
    inventories = [(inventory, position) for _, inventory, position in _inventories_of(groups, ids)]
    return StoredList(inventories, scans[image.pk].package_count, scans[image.pk].unusable_count, tuple(new_ids))


def placed_at(package: Package, position: int | None) -> Package:
    """Return the package with the position of its layer."""
    return package if position is None else replace(package, layer_position=position)


@transaction.atomic
def store_contents(image_id: int, checked: Contents) -> None:
    """Store what the check of an image's files found, instead of what an earlier one did.

    A set of problems is stored once for all images whose layer has exactly these, as inventories are: images share
    the sets of their bases. There is no row for a file.
    """
    wanted = {position: _content_set(layer) for position, layer in checked.layers.items()}
    rows = sorted({row.digest: row for row in wanted.values()}.values(), key=lambda row: row.digest)
    ContentSet.objects.bulk_create(rows, ignore_conflicts=True)
    ids = dict(ContentSet.objects.filter(digest__in=[row.digest for row in rows]).values_list("digest", "pk"))
    ImageContentSet.objects.filter(image=image_id).delete()
    ImageContentSet.objects.bulk_create(
        ImageContentSet(image_id=image_id, content_set_id=ids[row.digest], layer_position=position)
        for position, row in wanted.items()
    )
    ContentCheck.objects.update_or_create(
        image_id=image_id,
        defaults={
            "checked_at": clock.now(),
            "problem": checked.problem,
            "malware": checked.malware,
            "malware_problem": checked.malware_problem,
            "engine": checked.engine,
            "rules_version": secret_rules().version,
        },
    )


def _content_set(layer: LayerContents) -> ContentSet:
    entries = [[str(found.kind), found.path, found.detail] for found in layer.found]
    counts = {str(kind): count for kind, count in layer.counts.items()}
    content = orjson.dumps([entries, counts], option=orjson.OPT_SORT_KEYS)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    return ContentSet(digest=digest, entries=entries, counts=counts)


@dataclass(frozen=True, slots=True)
class _Scan:
    """The result of one scan."""

    content: Content
    package_count: int  # different package versions
    unusable_count: int  # packages that cannot be stored


_Group = tuple[int, int | None]  # an image and one of its layers


def _read(contents: Mapping[int, Content], keys: Keys) -> tuple[dict[_Group, frozenset[Entry]], dict[int, _Scan]]:
    """Return the package versions of each layer of each image, and the result of each scan by image id."""
    groups: dict[_Group, frozenset[Entry]] = {}
    scans: dict[int, _Scan] = {}
    for image_id, content in contents.items():
        layers: dict[int | None, set[Entry]] = defaultdict(set)
        unusable_count = 0
        for package in content.packages:
            entry = keys.of(package)
            if entry is None:
                unusable_count += 1
            else:
                layers[package.layer_position].add(entry)
        for position, entries in layers.items():
            groups[image_id, position] = frozenset(entries)
        scans[image_id] = _Scan(content, len(set().union(*layers.values())), unusable_count)
    return groups, scans


def _store_groups(groups: Mapping[_Group, frozenset[Entry]], ids: Mapping[PackageKey, int]) -> None:
    """Store the package versions of the layers of images. `ids` are those of the package versions."""
    rows = _inventories_of(groups, ids)
    with connection.cursor() as cursor:
        for start in range(0, len(rows), _PAIRS):
            columns = zip(*rows[start : start + _PAIRS], strict=True)
            cursor.execute(_INSERT_IMAGE_INVENTORIES, [clock.now(), *map(list, columns)])


def _inventories_of(
    groups: Mapping[_Group, frozenset[Entry]], ids: Mapping[PackageKey, int]
) -> list[tuple[int, int, int | None]]:
    """Store the new inventories among these; return (image id, inventory id, layer) of each group."""
    digests = {entries: _digest(entry.text for entry in entries) for entries in set(groups.values())}
    wanted = {digest: [ids[entry.key] for entry in entries] for entries, digest in digests.items()}
    inventories = _store_inventories(wanted)
    return [(image_id, inventories[digests[entries]], position) for (image_id, position), entries in groups.items()]


# One array for each column instead of one parameter for each value takes a third of the time of `bulk_create`.
_INSERT_IMAGE_INVENTORIES: Final = """
INSERT INTO lifecycle_imageinventory (added_at, image_id, inventory_id, layer_position)
SELECT %s, * FROM unnest(%s::bigint[], %s::bigint[], %s::integer[]) ON CONFLICT DO NOTHING
"""


def _forget(image_ids: Iterable[int]) -> None:
    """Remove what earlier scans found in these images, in the transaction that stores the new content."""
    ids = sorted(image_ids)
    list(Image.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk").values_list("pk"))
    ImageInventory.objects.filter(image__in=ids).delete()
    ImageLicences.objects.filter(image__in=ids).delete()
    Image.objects.filter(pk__in=ids).update(scanned_at=None, scan_problem="", package_count=0)


_SCANNED: Final = """
UPDATE lifecycle_image image SET
    package_count = scan.package_count, dropped_count = scan.dropped_count, scan_problem = scan.problem,
    scanned_at = %s,
    distro = CASE WHEN scan.distro <> '' THEN scan.distro ELSE image.distro END
FROM unnest(%s::bigint[], %s::integer[], %s::integer[], %s::text[], %s::text[])
     AS scan(id, package_count, dropped_count, distro, problem)
WHERE image.id = scan.id
"""


def _record_scans(scans: Mapping[int, _Scan]) -> None:
    """Write the results of scans to their images."""
    counts, dropped, distros, problems = [], [], [], []
    for scan in scans.values():
        counts.append(scan.package_count)
        dropped.append(scan.content.dropped_count + scan.unusable_count)
        distros.append(scan.content.distro[:60])
        problems.append(scan.content.problem[:300])
    with connection.cursor() as cursor:
        cursor.execute(_SCANNED, [clock.now(), list(scans), counts, dropped, distros, problems])


def is_scanned(image: Image) -> bool:
    """Return whether our own scan of the image is known. A brought SBOM does not replace it."""
    if image.scanned_at is None:
        return False
    return lists.own_list(image.pk) is not None or not lists.images_with_lists([image.pk])


def queue_scan(image_id: int) -> Job:
    """Queue a scan of one image in the caller's transaction, and return its job. An equal waiting job is reused."""
    return jobs.queue(SCAN, subject_id=image_id, actor=system_user(), dedupe_key=f"image:{image_id}")


def why_not_rescan(actor: User, repository: Repository, image: Image) -> Reason | None:
    """Return why `actor` cannot scan an image of `repository` again now, None when they can."""
    decision = may(actor, Verb.IMAGE_SCAN, repository=repository, environment=repository.environment)
    if not decision:
        return Reason(decision.reason)
    running = Job.objects.filter(
        kind=SCAN.name, subject_id__in=platform_ids(image), state__in=(Job.State.WAITING, Job.State.RUNNING)
    )
    return Reason("A scan of this image is waiting or running.", Conflict) if running.exists() else None


@transaction.atomic
def rescan(repository_id: int, digest: str, *, actor: User) -> list[Job]:
    """Scan an image again: each platform of an index. What is known stays until the new scan replaces it.

    Raises NotFound, NotPermitted, or Conflict while a scan is waiting or running.
    """
    repository = lock_repository(actor, repository_id, Verb.IMAGE_SCAN)
    image = image_in(repository, digest).image
    refuse_if(why_not_rescan(actor, repository, image))
    queued = [
        jobs.queue(SCAN, subject_id=pk, actor=actor, payload={"again": True}, dedupe_key=f"image:{pk}")
        for pk in platform_ids(image)
    ]
    audit.record(Action.IMAGE_RESCAN_REQUESTED, actor=actor, subject=image, repository=repository, image=image)
    return queued


@transaction.atomic
def note_problem(image: Image, problem: str) -> None:
    """Store the reason why an image could not be scanned. Its packages are then unknown, which passes no gate."""
    Image.objects.filter(pk=image.pk, scanned_at=None).update(scan_problem=problem[:300])


def inventory_digest(keys: Collection[PackageKey]) -> str:
    """Return the digest of the inventory with these package versions."""
    return _digest(map(str, keys))


def _digest(texts: Iterable[str]) -> str:
    return "sha256:" + hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def _sbom(image_id: int, content: Content) -> Sbom:
    basis = content.document or "\n".join(sorted([package.purl for package in content.packages])).encode()
    return Sbom(
        image_id=image_id,
        format=content.format,
        tool=content.tool[:80],
        digest="sha256:" + hashlib.sha256(basis).hexdigest(),
        document=zlib.compress(content.document) if content.document else b"",
    )


def store_package_versions(packages: Iterable[Package]) -> tuple[dict[PackageKey, int], list[int]]:
    """Store the new ones among these package versions; return (id by key, ids of the new ones)."""
    by_key: dict[PackageKey, Package] = {}
    for package in packages:
        by_key.setdefault(key_of(package), package)
    return _store_package_versions(by_key)


def _store_package_versions(by_key: Mapping[PackageKey, Package]) -> tuple[dict[PackageKey, int], list[int]]:
    wanted = sorted(by_key)  # always lock in the same order
    known = _package_ids(wanted)
    missing = [key for key in wanted if key not in known]
    added = _insert([_package_version(key, by_key[key]) for key in missing], missing)
    if len(added) < len(missing):  # another process stored some of them meanwhile
        added = _package_ids(missing)
    return {**known, **added}, sorted(added.values())


_INSERTED: Final = (
    "purl", "type", "namespace", "name", "version", "source_name", "source_version", "owner", "ecosystem", "release",
    "match_name", "match_version", "scheme", "problem",
)  # fmt: skip
_INSERT: Final = f"""
INSERT INTO lifecycle_packageversion ({", ".join(_INSERTED)}, version_key, key_version, first_seen_at, is_unmatched)
SELECT *, %s, %s, true FROM unnest({", ".join(["%s::text[]"] * len(_INSERTED))}, %s::bytea[])
ON CONFLICT DO NOTHING RETURNING id, purl, version, source_name, source_version, owner
"""  # noqa: S608 -- only the names of this module's columns are inserted


def _insert(rows: Sequence[_NewVersion], keys: Sequence[PackageKey]) -> dict[PackageKey, int]:
    """Insert these package versions; return the ids of those that were not there, by key."""
    key_of_row = {
        (row.purl, row.version, row.source_name, row.source_version, row.owner): key
        for row, key in zip(rows, keys, strict=True)
    }
    ids: dict[PackageKey, int] = {}
    with connection.cursor() as cursor:
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            columns = [[getattr(row, name) for row in part] for name in _INSERTED]
            version_keys = [row.version_key for row in part]
            cursor.execute(_INSERT, [KEY_VERSION, clock.now(), *columns, version_keys])
            ids.update({key_of_row[tuple(row[1:])]: row[0] for row in cursor.fetchall()})
    return ids


def _package_ids(keys: Sequence[PackageKey]) -> dict[PackageKey, int]:
    purls = sorted({key.purl for key in keys})
    wanted, ids = set(keys), dict[PackageKey, int]()
    with connection.cursor() as cursor:
        for start in range(0, len(purls), _CHUNK):
            cursor.execute(_KNOWN, [purls[start : start + _CHUNK]])
            for pk, purl, version, source_name, source_version, owner in cursor.fetchall():
                key = key_of_row(purl, version, source_name, source_version, owner)
                if key in wanted:
                    ids.setdefault(key, pk)
    return ids


_KNOWN: Final = """
SELECT id, purl, version, source_name, source_version, owner
FROM lifecycle_packageversion WHERE purl = ANY(%s) ORDER BY id
"""


@dataclass(slots=True)
class _NewVersion:
    """The values of a new row of PackageVersion. An import makes many, and a model instance takes ten times as long."""

    purl: str
    version: str
    source_name: str
    source_version: str
    owner: str
    type: str = ""
    namespace: str = ""
    name: str = ""
    ecosystem: str = ""
    release: str = ""
    match_name: str = ""
    match_version: str = ""
    scheme: str = ""
    version_key: bytes | None = None
    problem: str = ""


def _package_version(key: PackageKey, package: Package) -> _NewVersion:
    source = {"source_name": package.source_name or None, "source_version": package.source_version or None}
    row = _NewVersion(
        purl=package.purl,
        version=key.version,
        source_name=package.source_name[:255],
        source_version=package.source_version[:500],
        owner=key.owner,
    )
    try:
        parsed = parse_purl(package.purl)
        if not parsed.version and package.version:
            parsed = parse_purl(parsed._replace(version=package.version).to_string())
        matched = coordinates_of(parsed, **source)
    except (MalformedPurl, ValueError):
        row.type = package.purl[4:].partition("/")[0][:40]
        row.name = package.purl[4:].partition("/")[2][:255]
        row.problem = "not a package URL"
        return row
    parsed = canonical(parsed)
    row.type, row.namespace, row.name = parsed.type[:40], (parsed.namespace or "")[:255], parsed.name[:255]
    row.version = with_epoch(parsed, parsed.version or "")[:500]
    if key.owner:  # it has no coordinates of its own: advisories about the owner decide
        problem = coordinates(key.owner).problem
        row.problem = f"part of {package_words(key.owner)}, which cannot be matched: {problem}"[:200] if problem else ""
        return row
    row.ecosystem, row.release = matched.ecosystem[:60], matched.release[:RELEASE_MAX_CHARS]
    row.match_name, row.match_version, row.scheme = matched.name[:500], matched.version[:500], matched.scheme[:12]
    row.version_key, row.problem = matched.key, (matched.problem or "")[:200]
    return row


def coordinates_of_package(package: Package) -> Coordinates | None:
    """Return what advisories are compared with for a package, without storing it; None if it cannot be stored."""
    if not is_storable(package):
        return None
    row = _package_version(key_of(package), package)
    return Coordinates(
        row.ecosystem, row.release, row.match_name, row.match_version, row.scheme, row.version_key, row.problem or None
    )


_DERIVED: Final = (
    "type", "namespace", "name", "ecosystem", "release", "match_name", "match_version", "scheme", "version_key",
    "problem",
)  # fmt: skip


def derive_again(package_ids: Collection[int]) -> None:
    """Derive the coordinates of these package versions from their purls again, after a change of KEY_VERSION.

    They count as unmatched until they are matched again.
    """
    rows = list(PackageVersion.objects.select_for_update(no_key=True).filter(pk__in=package_ids).order_by("pk"))
    for row in rows:
        package = Package(row.purl, row.source_name, row.source_version, version=row.version, owner=row.owner)
        derived = _package_version(key_of(package), package)
        for name in _DERIVED:
            setattr(row, name, getattr(derived, name))
        row.key_version, row.is_unmatched = KEY_VERSION, True
    PackageVersion.objects.bulk_update(rows, [*_DERIVED, "key_version", "is_unmatched"], batch_size=500)


def store_inventories(wanted: dict[str, set[PackageKey]], package_ids: dict[PackageKey, int]) -> dict[str, int]:
    """Store the new ones among these inventories, with their packages; return {digest: inventory id}."""
    return _store_inventories({digest: [package_ids[key] for key in keys] for digest, keys in wanted.items()})


_INSERT_INVENTORIES: Final = """
INSERT INTO lifecycle_inventory (first_seen_at, digest, package_count)
SELECT %s, * FROM unnest(%s::text[], %s::integer[]) ON CONFLICT DO NOTHING RETURNING digest, id
"""
_INSERT_PAIRS: Final = """
INSERT INTO lifecycle_inventorypackage (inventory_id, package_id) SELECT * FROM unnest(%s::bigint[], %s::bigint[])
"""


def _store_inventories(wanted: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Store the new ones among these inventories, each with its package ids; return {digest: inventory id}."""
    digests = sorted(wanted)  # always lock in the same order
    ids = dict(Inventory.objects.filter(digest__in=digests).values_list("digest", "id"))
    missing = [digest for digest in digests if digest not in ids]
    with connection.cursor() as cursor:
        counts = [len(wanted[digest]) for digest in missing]
        cursor.execute(_INSERT_INVENTORIES, [clock.now(), missing, counts])
        added = dict(cursor.fetchall())
        # An inventory that another process stored meanwhile already has its packages, in the same transaction.
        inventories: list[int] = []
        packages: list[int] = []
        for digest, inventory_id in added.items():
            package_ids = sorted(wanted[digest])
            inventories += [inventory_id] * len(package_ids)
            packages += package_ids
        for start in range(0, len(packages), _PAIRS):
            part = slice(start, start + _PAIRS)
            cursor.execute(_INSERT_PAIRS, [inventories[part], packages[part]])
    if len(added) < len(missing):
        added = dict(Inventory.objects.filter(digest__in=missing).values_list("digest", "id"))
    return {**ids, **added}
