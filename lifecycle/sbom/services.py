"""Store what is inside images: each package version once, each set of them once, for all images that carry it."""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.db import connection, transaction

from accounts.models import User
from lifecycle import reactions
from lifecycle.core import clock
from lifecycle.core.errors import MalformedPurl
from lifecycle.registry.models import Image
from lifecycle.sbom.models import ImageInventory, Inventory, PackageVersion, Sbom

PURL_MAX: Final = 2000  # characters; a b-tree entry holds 2,704 bytes
_CHUNK: Final = 5000
_PAIRS: Final = 50_000  # rows of an inventory in one statement


@dataclass(frozen=True, slots=True)
class Package:
    """One package found in an image; `layer_position` is None where the source does not say."""

    purl: str
    source_name: str = ""
    source_version: str = ""
    layer_position: int | None = None
    version: str = ""  # used where the purl has none


@dataclass(frozen=True, slots=True)
class Content:
    """What one image holds, and the document that says so."""

    packages: Sequence[Package]
    distro: str = ""  # "debian-12"
    format: str = "import"
    tool: str = "import"
    document: bytes = b""
    problem: str = ""


@dataclass(slots=True)
class Stored:
    """What `store` changed."""

    image_ids: list[int] = field(default_factory=list)
    new_package_ids: list[int] = field(default_factory=list)


@transaction.atomic
def store(contents: dict[int, Content], *, actor: User) -> Stored:
    """Store what these images hold, in one transaction and a fixed number of statements.

    Images scanned before stay as they are (an image is scanned once in its life); findings of package versions that
    are known appear with the commit, the others' matching is queued.
    """
    images = list(
        Image.objects.select_for_update(no_key=True)
        .filter(pk__in=contents, scanned_at=None, kind=Image.Kind.MANIFEST)
        .order_by("pk")
    )
    stored = Stored([image.pk for image in images])
    if not images:
        return stored
    usable = {
        image.pk: [package for package in contents[image.pk].packages if _is_storable(package.purl)] for image in images
    }
    ids, stored.new_package_ids = store_package_versions(package for found in usable.values() for package in found)
    groups: dict[tuple[int, int | None], set[str]] = defaultdict(set)
    for image_id, found in usable.items():
        for package in found:
            groups[image_id, package.layer_position].add(package.purl)
    digests = {key: inventory_digest(purls) for key, purls in groups.items()}
    inventories = store_inventories({digests[key]: purls for key, purls in groups.items()}, ids)
    ImageInventory.objects.bulk_create(
        [
            ImageInventory(image_id=image_id, inventory_id=inventories[digests[image_id, position]],
                           layer_position=position)
            for image_id, position in groups
        ],
        ignore_conflicts=True, batch_size=_CHUNK,
    )  # fmt: skip
    _note_scanned([(image.pk, contents[image.pk], usable[image.pk]) for image in images])
    Sbom.objects.bulk_create([_sbom(image, contents[image.pk]) for image in images], ignore_conflicts=True)
    reactions.images_scanned(stored.image_ids, new_package_ids=stored.new_package_ids, actor=actor)
    return stored


_SCANNED: Final = """
UPDATE lifecycle_image image SET
    package_count = said.package_count, scan_problem = said.problem, scanned_at = %s,
    distro = CASE WHEN said.distro <> '' THEN said.distro ELSE image.distro END
FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[]) AS said(id, package_count, distro, problem)
WHERE image.id = said.id
"""


def _note_scanned(found: list[tuple[int, Content, list[Package]]]) -> None:
    """Write what the scans of these images (id, what was found, what of it can be stored) came to."""
    counts, distros, problems = [], [], []
    for _, content, usable in found:
        dropped = len(content.packages) - len(usable)
        problem = f"{dropped} packages have no usable package URL." if dropped else ""
        counts.append(len({package.purl for package in usable}))
        distros.append(content.distro[:60])
        problems.append((content.problem or problem)[:300])
    with connection.cursor() as cursor:
        cursor.execute(_SCANNED, [clock.now(), [image_id for image_id, _, _ in found], counts, distros, problems])


@transaction.atomic
def note_problem(image: Image, problem: str) -> None:
    """Write why an image could not be scanned: it is then unknown, which is no pass."""
    Image.objects.filter(pk=image.pk, scanned_at=None).update(scan_problem=problem[:300])


def _is_storable(purl: str) -> bool:
    return purl.startswith("pkg:") and len(purl.encode(errors="replace")) <= PURL_MAX and "\x00" not in purl


def inventory_digest(purls: Collection[str]) -> str:
    """Return the name of the inventory that holds these purls."""
    return "sha256:" + hashlib.sha256("\n".join(sorted(purls)).encode()).hexdigest()


def _sbom(image: Image, content: Content) -> Sbom:
    basis = content.document or "\n".join(sorted(package.purl for package in content.packages)).encode()
    return Sbom(
        image=image,
        format=content.format,
        tool=content.tool[:80],
        digest="sha256:" + hashlib.sha256(basis).hexdigest(),
        document=zlib.compress(content.document) if content.document else b"",
    )


def store_package_versions(packages: Iterable[Package]) -> tuple[dict[str, int], list[int]]:
    """Store what is not known yet of these package versions; return (id by purl, ids of those that were new)."""
    by_purl: dict[str, Package] = {}
    for package in packages:
        by_purl.setdefault(package.purl, package)
    purls = sorted(by_purl)  # one order of locking
    known = _package_ids(purls)
    missing = [purl for purl in purls if purl not in known]
    PackageVersion.objects.bulk_create(
        [_package_version(by_purl[purl]) for purl in missing], ignore_conflicts=True, batch_size=1000
    )
    added = _package_ids(missing)
    return {**known, **added}, sorted(added.values())


def _package_ids(purls: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for start in range(0, len(purls), _CHUNK):
        found = PackageVersion.objects.filter(purl__in=purls[start : start + _CHUNK])
        ids.update(found.values_list("purl", "id"))
    return ids


def _package_version(package: Package) -> PackageVersion:
    from lifecycle.advisories.coordinates import coordinates, parse_purl  # noqa: PLC0415 -- stands right of us

    source = {"source_name": package.source_name or None, "source_version": package.source_version or None}
    row = PackageVersion(
        purl=package.purl, source_name=package.source_name[:255], source_version=package.source_version[:500]
    )
    try:
        parsed = parse_purl(package.purl)
        judged = package.purl
        if not parsed.version and package.version:
            parsed = parsed._replace(version=package.version)
            judged = parsed.to_string()
        found = coordinates(judged, **source)
    except (MalformedPurl, ValueError):
        row.type = package.purl[4:].partition("/")[0][:40]
        row.name = package.purl[4:].partition("/")[2][:255]
        row.problem = "not a package URL"
        return row
    qualifiers = parsed.qualifiers if isinstance(parsed.qualifiers, dict) else {}
    epoch = qualifiers.get("epoch") or ""
    version = parsed.version or ""
    row.type, row.namespace, row.name = parsed.type[:40], (parsed.namespace or "")[:255], parsed.name[:255]
    row.version = (f"{epoch}:{version}" if epoch.isdigit() and int(epoch) and ":" not in version else version)[:500]
    row.ecosystem, row.release = found.ecosystem[:60], found.release[:40]
    row.match_name, row.match_version, row.scheme = found.name[:500], found.version[:500], found.scheme[:12]
    row.version_key, row.problem = found.key, (found.problem or "")[:200]
    return row


def store_inventories(wanted: dict[str, set[str]], package_ids: dict[str, int]) -> dict[str, int]:
    """Return the id of each inventory by its digest, those that were new written with their packages."""
    digests = sorted(wanted)
    known = dict(Inventory.objects.filter(digest__in=digests).values_list("digest", "id"))
    missing = [digest for digest in digests if digest not in known]
    Inventory.objects.bulk_create(
        [Inventory(digest=digest, package_count=len(wanted[digest])) for digest in missing], ignore_conflicts=True
    )
    added = dict(Inventory.objects.filter(digest__in=missing).values_list("digest", "id"))
    pairs = [(added[digest], package_ids[purl]) for digest in missing for purl in sorted(wanted[digest])]
    with connection.cursor() as cursor:
        for start in range(0, len(pairs), _PAIRS):
            part = pairs[start : start + _PAIRS]
            # Two arrays instead of a row of parameters each: four times as fast, and here is where the bulk goes.
            cursor.execute(
                "INSERT INTO lifecycle_inventorypackage (inventory_id, package_id)"
                " SELECT * FROM unnest(%s::bigint[], %s::bigint[]) ON CONFLICT DO NOTHING",
                [[inventory for inventory, _ in part], [package for _, package in part]],
            )
    return {**known, **added}
