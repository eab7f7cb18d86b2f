"""Store the content of images. Each package version, and each set of them, is stored once for all its images."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from django.db import connection, transaction
from packageurl import PackageURL

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
from lifecycle.sbom.kinds import SCAN
from lifecycle.sbom.models import ImageInventory, Inventory, PackageVersion, Sbom
from lifecycle.versions import KEY_VERSION
from lifecycle.versions.coordinates import (
    DISTRIBUTION_PREFIXES,
    RELEASE_MAX_CHARS,
    canonical,
    coordinates,
    coordinates_of,
    package_words,
    parse_purl,
)

PURL_MAX: Final = 2000  # bytes
_KEY_MAX: Final = 2500  # bytes of a package's key; a b-tree entry holds 2,704
_HAS_UPSTREAM: Final = re.compile(r"[?&]upstream=[^&#]", re.IGNORECASE)
OWNER_MAX: Final = 500  # characters
_CHUNK: Final = 5000
_PAIRS: Final = 50_000  # rows of an inventory in one statement


@dataclass(frozen=True, slots=True)
class Package:
    """One package in an image; `layer_position` is None where the source does not name the layer."""

    purl: str
    source_name: str = ""
    source_version: str = ""
    layer_position: int | None = None
    version: str = ""  # used where the purl has none
    owner: str = ""  # purl of the distribution's package that owns its files


class PackageKey(NamedTuple):
    """The identity of a package version: its purl, and other values that affect its matching."""

    purl: str
    version: str = ""  # only where the purl has none
    source_name: str = ""  # only where the purl does not have it and advisories name source packages
    source_version: str = ""
    owner: str = ""  # the distribution's package that it is judged as, for packages of languages

    def __str__(self) -> str:
        if self.owner:
            return "\t".join(self)
        return self.purl if not any(self[1:]) else "\t".join(self[:4])  # as before there were owners


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


@dataclass(slots=True)
class Stored:
    """The images and package versions that `store` added."""

    image_ids: list[int] = field(default_factory=list)
    new_package_ids: list[int] = field(default_factory=list)


@transaction.atomic
def store(contents: dict[int, Content], *, actor: User, replaces: bool = False) -> Stored:
    """Store the content of these images, in one transaction with a fixed number of statements.

    Images that are already scanned are not changed, unless the new content `replaces` the old one. Findings of known
    package versions appear with the commit; the matching of new ones is queued.
    """
    if replaces:
        _forget(contents)
    images = list(
        Image.objects.select_for_update(no_key=True)
        .filter(pk__in=contents, scanned_at=None, kind=Image.Kind.MANIFEST)
        .order_by("pk")
    )
    stored = Stored([image.pk for image in images])
    if not images:
        return stored
    keys = _Keys()
    groups: dict[tuple[int, int | None], set[PackageKey]] = defaultdict(set)
    dropped: dict[int, int] = {}
    for image in images:
        packages = contents[image.pk].packages
        storable = [(package.layer_position, key) for package in packages if (key := keys.of(package)) is not None]
        dropped[image.pk] = len(packages) - len(storable)
        for position, key in storable:
            groups[image.pk, position].add(key)
    ids, stored.new_package_ids = store_package_versions(keys.packages.values(), keys=keys)
    digests = {group: inventory_digest(group_keys) for group, group_keys in groups.items()}
    inventories = store_inventories({digests[group]: keys for group, keys in groups.items()}, ids)
    ImageInventory.objects.bulk_create(
        [
            ImageInventory(image_id=image_id, inventory_id=inventories[digests[image_id, position]],
                           layer_position=position)
            for image_id, position in groups
        ],
        ignore_conflicts=True, batch_size=_CHUNK,
    )  # fmt: skip
    held: dict[int, set[PackageKey]] = defaultdict(set)
    for (image_id, _), group_keys in groups.items():
        held[image_id] |= group_keys
    _record_scans([(image.pk, contents[image.pk], len(held[image.pk]), dropped[image.pk]) for image in images])
    Sbom.objects.bulk_create([_sbom(image, contents[image.pk]) for image in images], ignore_conflicts=True)
    events.publish(events.ImagesScanned(tuple(stored.image_ids), tuple(stored.new_package_ids), actor_id=actor.pk))
    return stored


def _forget(image_ids: Iterable[int]) -> None:
    """Remove what earlier scans found in these images, in the transaction that stores the new content."""
    ids = sorted(image_ids)
    list(Image.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk").values_list("pk"))
    ImageInventory.objects.filter(image__in=ids).delete()
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


class _Keys:
    """The keys of packages. Images share most of their packages, so each one is looked at once.

    It remembers packages by identity: an import makes one object for equal packages (`inventories._Packages`), and
    computing a hash of each package again would take most of its time.
    """

    def __init__(self) -> None:
        self.packages: dict[PackageKey, Package] = {}  # one package for each key
        self._known: dict[int, tuple[Package, PackageKey | None]] = {}  # holds the package, so that its id stays taken

    def of(self, package: Package) -> PackageKey | None:
        """Return the key of `package`, or None if it cannot be stored."""
        known = self._known.get(id(package))
        if known is None:
            key = key_of(package) if _is_storable(package) else None
            if key is not None:
                self.packages.setdefault(key, package)
            known = self._known[id(package)] = (package, key)
        return known[1]


def _record_scans(scans: list[tuple[int, Content, int, int]]) -> None:
    """Write the results of scans to their images.

    Each scan is (image id, content, number of package versions, number of packages that cannot be stored).
    """
    counts, dropped, distros, problems = [], [], [], []
    for _, content, count, unusable in scans:
        counts.append(count)
        dropped.append(content.dropped_count + unusable)
        distros.append(content.distro[:60])
        problems.append(content.problem[:300])
    ids = [image_id for image_id, *_ in scans]
    with connection.cursor() as cursor:
        cursor.execute(_SCANNED, [clock.now(), ids, counts, dropped, distros, problems])


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


def _is_storable(package: Package) -> bool:
    purl = package.purl
    if not purl.startswith("pkg:") or "\x00" in purl or len(purl.encode(errors="replace")) > PURL_MAX:
        return False
    source = (package.source_name[:255], package.source_version[:500])
    parts = (purl, package.version[:500], *source, owner_of(package))
    return sum(len(text.encode(errors="replace")) for text in parts) <= _KEY_MAX


def key_of(package: Package) -> PackageKey:
    """Return the key of the package version. Package versions that match differently have different keys."""
    version = ""
    if package.version and not _has_version(package.purl):
        version = _with_epoch(parse_purl(package.purl), package.version)
    return _key(package.purl, version, package.source_name, package.source_version, owner_of(package))


def owner_of(package: Package) -> str:
    """Return the purl of the distribution's package that owns this package of a language, without what is not needed.

    "" if there is none, and for packages of distributions.
    """
    if not package.owner or package.purl.startswith(DISTRIBUTION_PREFIXES):
        return ""
    return _short_owner(package.owner)


@lru_cache(maxsize=4096)
def _short_owner(purl: str) -> str:
    try:
        parsed = canonical(parse_purl(purl))
    except MalformedPurl:
        return ""
    given = parsed.qualifiers if isinstance(parsed.qualifiers, dict) else {}
    needed = {name: value for name, value in given.items() if name in {"distro", "epoch"}}
    short = parsed._replace(qualifiers=needed, subpath=None).to_string()
    return short if parsed.type in {"apk", "deb", "rpm"} and len(short) <= OWNER_MAX else ""


def _key(purl: str, version: str, source_name: str, source_version: str, owner: str) -> PackageKey:
    if owner:
        return PackageKey(purl, version[:500], owner=owner)
    if not source_name or not purl.startswith(DISTRIBUTION_PREFIXES) or _HAS_UPSTREAM.search(purl):
        return PackageKey(purl, version[:500])
    return PackageKey(purl, version[:500], source_name[:255], source_version[:500])


def _has_version(purl: str) -> bool:
    """Return whether the purl has a version, or is malformed, so that a separate version would not help."""
    name = purl.partition("#")[0].partition("?")[0].rpartition("/")[2]
    if 0 < name.rfind("@") < len(name) - 1:
        return True  # the fast path for nearly all purls; parsing each purl would take most of an import's time
    try:
        return bool(parse_purl(purl).version)
    except MalformedPurl:
        return True


def inventory_digest(keys: Collection[PackageKey]) -> str:
    """Return the digest of the inventory with these package versions."""
    return "sha256:" + hashlib.sha256("\n".join(sorted(map(str, keys))).encode()).hexdigest()


def _sbom(image: Image, content: Content) -> Sbom:
    basis = content.document or "\n".join(sorted(package.purl for package in content.packages)).encode()
    return Sbom(
        image=image,
        format=content.format,
        tool=content.tool[:80],
        digest="sha256:" + hashlib.sha256(basis).hexdigest(),
        document=zlib.compress(content.document) if content.document else b"",
    )


def store_package_versions(
    packages: Iterable[Package], *, keys: _Keys | None = None
) -> tuple[dict[PackageKey, int], list[int]]:
    """Store the new ones among these package versions; return (id by key, ids of the new ones)."""
    by_key: dict[PackageKey, Package] = {} if keys is None else keys.packages
    if keys is None:
        for package in packages:
            by_key.setdefault(key_of(package), package)
    wanted = sorted(by_key)  # always lock in the same order
    known = _package_ids(wanted)
    missing = [key for key in wanted if key not in known]
    added = _insert([_package_version(key, by_key[key]) for key in missing], missing)
    if len(added) < len(missing):  # another process stored some of them meanwhile
        added = _package_ids(missing)
    return {**known, **added}, sorted(added.values())


# One array for each column instead of one parameter for each value, which takes a third of the time of bulk_create.
_INSERTED: Final = (
    "purl", "type", "namespace", "name", "version", "source_name", "source_version", "owner", "ecosystem", "release",
    "match_name", "match_version", "scheme", "problem",
)  # fmt: skip
_INSERT: Final = f"""
INSERT INTO lifecycle_packageversion ({", ".join(_INSERTED)}, version_key, key_version, first_seen_at, is_unmatched)
SELECT *, %s, %s, true FROM unnest({", ".join(["%s::text[]"] * len(_INSERTED))}, %s::bytea[])
ON CONFLICT DO NOTHING RETURNING id, purl, version, source_name, source_version, owner
"""  # noqa: S608 -- only the names of this module's columns are inserted


def _insert(rows: Sequence[PackageVersion], keys: Sequence[PackageKey]) -> dict[PackageKey, int]:
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
                key = _key(purl, "" if _has_version(purl) else version, source_name, source_version, owner)
                if key in wanted:
                    ids.setdefault(key, pk)
    return ids


_KNOWN: Final = """
SELECT id, purl, version, source_name, source_version, owner
FROM lifecycle_packageversion WHERE purl = ANY(%s) ORDER BY id
"""


def _with_epoch(parsed: PackageURL, version: str) -> str:
    qualifiers = parsed.qualifiers if isinstance(parsed.qualifiers, dict) else {}
    epoch = qualifiers.get("epoch") or ""
    has_epoch = epoch.isascii() and epoch.isdigit() and int(epoch) and ":" not in version
    return f"{epoch}:{version}" if has_epoch else version


def _package_version(key: PackageKey, package: Package) -> PackageVersion:
    source = {"source_name": package.source_name or None, "source_version": package.source_version or None}
    row = PackageVersion(
        purl=package.purl,
        version=key.version,
        source_name=package.source_name[:255],
        source_version=package.source_version[:500],
        owner=key.owner,
        is_unmatched=True,
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
    row.version = _with_epoch(parsed, parsed.version or "")[:500]
    if key.owner:  # it has no coordinates of its own: advisories about the owner decide
        problem = coordinates(key.owner).problem
        row.problem = f"part of {package_words(key.owner)}, which cannot be matched: {problem}"[:200] if problem else ""
        return row
    row.ecosystem, row.release = matched.ecosystem[:60], matched.release[:RELEASE_MAX_CHARS]
    row.match_name, row.match_version, row.scheme = matched.name[:500], matched.version[:500], matched.scheme[:12]
    row.version_key, row.problem = matched.key, (matched.problem or "")[:200]
    return row


_DERIVED: Final = (
    "type", "namespace", "name", "ecosystem", "release", "match_name", "match_version", "scheme", "version_key",
    "problem", "key_version", "is_unmatched",
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
    PackageVersion.objects.bulk_update(rows, _DERIVED, batch_size=500)


def store_inventories(wanted: dict[str, set[PackageKey]], package_ids: dict[PackageKey, int]) -> dict[str, int]:
    """Store the new ones among these inventories, with their packages; return {digest: inventory id}."""
    digests = sorted(wanted)
    known = dict(Inventory.objects.filter(digest__in=digests).values_list("digest", "id"))
    missing = [digest for digest in digests if digest not in known]
    Inventory.objects.bulk_create(
        [Inventory(digest=digest, package_count=len(wanted[digest])) for digest in missing], ignore_conflicts=True
    )
    added = dict(Inventory.objects.filter(digest__in=missing).values_list("digest", "id"))
    pairs = [(added[digest], package_ids[key]) for digest in missing for key in sorted(wanted[digest])]
    with connection.cursor() as cursor:
        for start in range(0, len(pairs), _PAIRS):
            part = pairs[start : start + _PAIRS]
            # Two array parameters instead of one row of parameters per pair: four times as fast, for the most rows.
            cursor.execute(
                "INSERT INTO lifecycle_inventorypackage (inventory_id, package_id)"
                " SELECT * FROM unnest(%s::bigint[], %s::bigint[]) ON CONFLICT DO NOTHING",
                [[inventory for inventory, _ in part], [package for _, package in part]],
            )
    return {**known, **added}
