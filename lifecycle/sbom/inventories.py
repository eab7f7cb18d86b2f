"""Import images from inventory files. Rows become images, layers and packages; contradicting rows are refused by line.

Format and rules: docs/reference/inventory-format.md.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

import orjson
from django.db import connection, transaction
from django.utils.text import slugify

from accounts.models import Team, User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import InventoryImported
from lifecycle.core import clock, locks
from lifecycle.core.errors import LifecycleError, Malformed
from lifecycle.core.types import Digest, parse_repository_name, parse_tag
from lifecycle.oci.chains import as_stored, chain_ids
from lifecycle.oci.manifests import normalise_platform, parse_timestamp
from lifecycle.registry.models import Image, Layer, Registry, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.sbom.packages import Keys, Package
from lifecycle.sbom.services import Content, store

LINE_MAX: Final = 64 * 1024 * 1024  # bytes of one row, unpacked
BATCH: Final = 200
LAYERS_MAX: Final = 1000
PACKAGES_MAX: Final = 100_000
DEFAULT_REGISTRY: Final = "docker.io"
_SIZE_MAX: Final = 2**50  # bytes of one layer; the sum of a thousand layers still fits in a bigint
_LOCK: Final = 0x696D7072  # one import at a time, because two could store the same image


@dataclass(slots=True)
class Report:
    """The result of an import."""

    rows: int = 0
    new_image_ids: list[int] = field(default_factory=list)
    scanned_image_ids: list[int] = field(default_factory=list)
    new_package_ids: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)  # (line number, reason)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    registry: str
    repository: str
    tags: tuple[str, ...]
    digest: str
    config_digest: str
    platform: tuple[str, str, str]
    created: Any
    diff_ids: tuple[str, ...]
    digests: tuple[str, ...]
    sizes: tuple[int, ...]
    distro: str
    packages: tuple[Package, ...] | None  # None: the row has no package list


def import_inventories(path: Path, *, team_slug: str, actor: User) -> Report:
    """Import every row of `path` (JSON lines, plain or gzip) in batches. A second import changes nothing.

    Each batch commits with its derivations and matches, so an interrupted run leaves no image half imported.
    Raises OSError when the file cannot be opened.
    """
    report = Report()
    batch: list[_Row] = []
    packages, keys = _Packages(), Keys()
    with path.open("rb") as raw, _without_full_collections():
        for number, line in _lines(raw):
            report.rows += 1
            try:
                if isinstance(line, Malformed):
                    raise line
                batch.append(_parse(number, line, packages))
            except LifecycleError as error:
                report.refused.append((number, error.message))
            if len(batch) == BATCH:
                _import_batch(batch, report, keys, team_slug, actor)
                batch = []
                gc.collect(0)
    _import_batch(batch, report, keys, team_slug, actor)
    report.refused.sort()
    return report


@contextlib.contextmanager
def _without_full_collections() -> Iterator[None]:
    """Stop the automatic garbage collection, which would walk through all known packages again and again.

    It takes a sixth of the time of an import, and rows have no cycles. The caller collects the young objects itself.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _lines(raw: BinaryIO) -> Iterator[tuple[int, bytes | Malformed]]:
    """Yield (line number, line) for each line that is not blank; an unreadable line is yielded as an error."""
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_gzip else raw
    number = 0
    try:
        while line := stream.readline(LINE_MAX + 1):
            number += 1
            if len(line) > LINE_MAX:
                while line and not line.endswith(b"\n"):  # skip to the end of the line
                    line = stream.readline(LINE_MAX)
                yield number, Malformed(f"longer than {LINE_MAX} bytes")
            elif line.strip():
                yield number, line
    except (OSError, EOFError, zlib.error) as error:  # a truncated file: the lines before are imported
        yield number + 1, Malformed(f"the file cannot be read from here: {error}")


class _Packages:
    """One object for equal packages. Images share most of their packages, and each one is checked once."""

    _SIZE_MAX: Final = 200_000  # packages held in memory

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Package] = {}

    def of(self, item: object, layer_count: int) -> Package:
        """Return the package that `item` describes. Raises Malformed."""
        if not isinstance(item, dict):
            raise Malformed("a package is not an object")
        layer = item.get("layer")
        position = layer if type(layer) is int and 0 <= layer < layer_count else None
        get = item.get
        given = (get("purl"), get("source_name"), get("source_version"), get("version"), get("owner"), position)
        try:
            known = self._known.get(given)
        except TypeError:  # a list or an object: refused below
            known = None
        if known is not None:
            return known
        package = _package(item, position)
        if len(self._known) >= self._SIZE_MAX:
            self._known.clear()
        self._known[given] = package
        return package


def _parse(number: int, line: bytes, known: _Packages) -> _Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise Malformed("not a JSON object")
    digests, diff_ids = _layer_ids(row, "layers"), _layer_ids(row, "diff_ids")
    if digests and diff_ids and len(digests) != len(diff_ids):
        raise Malformed("layers and diff_ids have different lengths")
    count = len(digests or diff_ids)
    sizes = row.get("layer_sizes")
    are_sizes = isinstance(sizes, list) and len(sizes) == count and all(type(size) is int for size in sizes)
    packages = row.get("packages")
    if packages is not None and (not isinstance(packages, list) or len(packages) > PACKAGES_MAX):
        raise Malformed(f"packages is not a list of at most {PACKAGES_MAX} entries")
    tags = row.get("tags") or ([row["tag"]] if row.get("tag") else [])
    return _Row(
        line=number,
        registry=_text(row, "registry")[:200] or DEFAULT_REGISTRY,
        repository=parse_repository_name(_text(row, "repository")),
        tags=tuple(parse_tag(str(tag)) for tag in tags) if isinstance(tags, list) else (),
        digest=Digest.parse(_text(row, "manifest_digest")).text,
        config_digest=Digest.parse(_text(row, "image_id")).text if row.get("image_id") else "",
        platform=_platform(row.get("platform")),
        created=row.get("created"),
        diff_ids=diff_ids or ("",) * count,
        digests=digests or ("",) * count,
        sizes=tuple(min(max(size, 0), _SIZE_MAX) for size in sizes or ()) if are_sizes else (0,) * count,
        distro=_distro(row.get("os")),
        packages=None if packages is None else tuple(known.of(item, count) for item in packages or ()),
    )


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"{key} is not a string")
    if value and "\x00" in value:
        raise Malformed(f"{key} contains a NUL character")
    return value or ""


def _layer_ids(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = row.get(key) or []
    if not isinstance(value, list) or len(value) > LAYERS_MAX:
        raise Malformed(f"{key} is not a list of at most {LAYERS_MAX} entries")
    return tuple(Digest.parse(item if isinstance(item, str) else "?").text if item else "" for item in value)


def _platform(value: object) -> tuple[str, str, str]:
    if isinstance(value, str):
        parts = [*value.replace("\x00", "").split("/"), "", "", ""]
        os, architecture, variant = parts[:3]
    elif isinstance(value, dict):
        names = ("os", "architecture", "variant")
        os, architecture, variant = (str(value.get(name) or "").replace("\x00", "") for name in names)
    else:
        return "", "", ""
    if architecture == "arm" and not variant:  # not declared, and v7 would be a guess
        return os[:40], architecture, ""
    platform = normalise_platform(os=os, architecture=architecture, variant=variant)
    return platform.os[:40], platform.architecture[:40], platform.variant[:40]


def _distro(value: object) -> str:
    if not isinstance(value, dict) or not value.get("name"):
        return ""
    text = f"{value['name']}-{value['version']}" if value.get("version") else str(value["name"])
    return text.replace("\x00", "")


def _package(item: Mapping[str, Any], position: int | None) -> Package:
    return Package(
        purl=_text(item, "purl"),
        source_name=_text(item, "source_name"),
        source_version=_text(item, "source_version"),
        layer_position=position,
        version=_text(item, "version"),
        owner=_text(item, "owner"),
    )


@transaction.atomic
def _import_batch(rows: list[_Row], report: Report, keys: Keys, team_slug: str, actor: User) -> None:
    if not rows:
        return
    locks.wait_for(_LOCK)
    known = _known_images(rows)
    accepted = _accepted_rows(rows, known, report)
    firsts = {row.digest: row for row in reversed(accepted)}
    fresh = sorted(firsts.keys() - known.images.keys())
    created = Image.objects.bulk_create([_image(firsts[digest], known.layers[digest]) for digest in fresh])
    added = {image.digest: image for image in created}
    images = known.images | added
    grown = [images[digest] for digest in sorted(known.grown - set(fresh))]
    _update_layers(grown, known.layers)
    _add_layers({image.pk: known.layers[image.digest] for image in (*added.values(), *grown)})
    new_ids = sorted(image.pk for image in added.values())
    placed = _add_to_repositories(accepted, images, team_slug)
    contents: dict[int, Content] = {}
    for row in accepted:
        image = images[row.digest]
        if row.packages is not None and image.scanned_at is None:
            contents.setdefault(image.pk, Content(row.packages, distro=row.distro))
    keys.trim()
    stored = store(contents, actor=actor, keys=keys, publish=False)
    report.new_image_ids += new_ids
    report.scanned_image_ids += stored.image_ids
    report.new_package_ids += stored.new_package_ids
    new_or_grown = (*new_ids, *(image.pk for image in grown))
    events.publish(events.ImagesImported(new_or_grown, tuple(stored.new_package_ids)))
    if stored.image_ids:  # no new package version is left to match
        events.publish(events.ImagesScanned(tuple(stored.image_ids), (), actor_id=actor.pk))
    if added or grown or placed or stored.image_ids:
        details = InventoryImported(images=len(added), scanned=len(stored.image_ids), placed=placed)
        audit.record(Action.INVENTORY_IMPORTED, actor=actor, details=details)


@dataclass(slots=True)
class _Layers:
    """The known data of an image's layers, base first; unknown values are "" and 0."""

    diff_ids: list[str]
    digests: list[str]
    sizes: list[int]

    @classmethod
    def of(cls, row: _Row) -> Self:
        return cls(list(row.diff_ids), list(row.digests), list(row.sizes))

    def contradicts(self, row: _Row) -> bool:
        """Return whether `row` has other layers. A row without layers contradicts nothing."""
        if not self.digests or not row.digests:
            return False
        if len(self.digests) != len(row.digests):
            return True
        pairs = (*zip(self.diff_ids, row.diff_ids, strict=True), *zip(self.digests, row.digests, strict=True))
        return any(mine and other and mine != other for mine, other in pairs)

    def fill_in(self, row: _Row) -> bool:
        """Fill in unknown values from `row`, and return whether digests or diff ids changed."""
        before = (self.diff_ids, self.digests)
        if not self.digests:
            self.diff_ids, self.digests, self.sizes = list(row.diff_ids), list(row.digests), list(row.sizes)
        elif row.digests:
            self.diff_ids = [mine or other for mine, other in zip(self.diff_ids, row.diff_ids, strict=True)]
            self.digests = [mine or other for mine, other in zip(self.digests, row.digests, strict=True)]
            self.sizes = [mine or other for mine, other in zip(self.sizes, row.sizes, strict=True)]
        return before != (self.diff_ids, self.digests)


@dataclass(slots=True)
class _Known:
    """The images of a batch, by digest: those stored before, and the layers of all of them, updated with each row."""

    images: dict[str, Image]
    layers: dict[str, _Layers]
    grown: set[str] = field(default_factory=set)  # digests whose known layers changed


def _known_images(rows: Iterable[_Row]) -> _Known:
    digests = [row.digest for row in rows]
    images = {image.digest: image for image in Image.objects.filter(digest__in=digests).defer("config")}
    layers = {digest: _Layers([], [], []) for digest in images}
    stored = Layer.objects.filter(image__digest__in=digests).order_by("image_id", "position")
    for digest, diff_id, layer, size in stored.values_list("image__digest", "diff_id", "digest", "size_bytes"):
        layers[digest].diff_ids.append(diff_id)
        layers[digest].digests.append(layer)
        layers[digest].sizes.append(size)
    return _Known(images, layers)


def _accepted_rows(rows: Iterable[_Row], known: _Known, report: Report) -> list[_Row]:
    """Return the rows that do not contradict the known data of their digest, and add their data to `known`."""
    accepted = []
    for row in rows:
        image = known.images.get(row.digest)
        if image is not None and image.kind != Image.Kind.MANIFEST:
            report.refused.append((row.line, f"{row.digest} is stored as an {image.kind}, not as an image"))
            continue
        layers = known.layers.get(row.digest)
        if layers is None:
            known.layers[row.digest] = _Layers.of(row)
        elif layers.contradicts(row):
            report.refused.append((row.line, f"{row.digest} is stored with other layers"))
            continue
        elif (image is None or not image.manifest) and layers.fill_in(row):  # a stored manifest is already complete
            known.grown.add(row.digest)
        accepted.append(row)
    return accepted


def _chain_ids_of(layers: _Layers) -> tuple[str, str]:
    diff_chain, digest_chain = chain_ids(layers.diff_ids), chain_ids(layers.digests)
    return as_stored(diff_chain[-1]) if diff_chain else "", as_stored(digest_chain[-1]) if digest_chain else ""


def _image(row: _Row, layers: _Layers) -> Image:
    os, architecture, variant = row.platform
    diff_chain_id, digest_chain_id = _chain_ids_of(layers)
    return Image(
        digest=row.digest,
        kind=Image.Kind.MANIFEST,
        media_type="",  # not in the file
        config_digest=row.config_digest,
        os=os,
        architecture=architecture,
        variant=variant,
        size_bytes=sum(layers.sizes),
        layer_count=len(layers.digests),
        diff_chain_id=diff_chain_id,
        digest_chain_id=digest_chain_id,
        created_at=parse_timestamp(row.created),
        distro=row.distro[:60],
    )


def _update_layers(images: list[Image], known: Mapping[str, _Layers]) -> None:
    """Update images that were imported before with newly known layer data, and delete their old layer rows."""
    Layer.objects.filter(image__in=images).delete()
    for image in images:
        layers = known[image.digest]
        image.layer_count, image.size_bytes = len(layers.digests), sum(layers.sizes)
        image.diff_chain_id, image.digest_chain_id = _chain_ids_of(layers)
    Image.objects.bulk_update(images, ["layer_count", "size_bytes", "diff_chain_id", "digest_chain_id"])


_INSERT_LAYERS: Final = """
INSERT INTO lifecycle_layer (image_id, position, digest, diff_id, size_bytes, diff_chain_id, digest_chain_id,
                             media_type, created_by)
SELECT *, '', '' FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[])
"""


def _add_layers(layers_of: Mapping[int, _Layers]) -> None:
    """Store the layers of these images, by image id. One array for each column is faster than `bulk_create`."""
    columns: tuple[list[Any], ...] = ([], [], [], [], [], [], [])
    for image_id, layers in layers_of.items():
        count = len(layers.digests)
        values: tuple[Iterable[Any], ...] = (
            [image_id] * count,
            range(count),
            layers.digests,
            layers.diff_ids,
            layers.sizes,
            map(as_stored, chain_ids(layers.diff_ids)),
            map(as_stored, chain_ids(layers.digests)),
        )
        for column, part in zip(columns, values, strict=True):
            column.extend(part)
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_LAYERS, list(columns))


def _add_to_repositories(rows: list[_Row], images: Mapping[str, Image], team_slug: str) -> int:
    """Add every image to its repository, with those of its tags that do not exist yet; return the number added."""
    repositories = _repositories(sorted({(row.registry, row.repository) for row in rows}), team_slug)
    pairs = {(repositories[row.registry, row.repository].pk, images[row.digest].pk) for row in rows}
    present = set(
        RepositoryImage.objects.filter(
            repository_id__in={pair[0] for pair in pairs}, image_id__in={pair[1] for pair in pairs}
        ).values_list("repository_id", "image_id")
    )
    RepositoryImage.objects.bulk_create(
        [RepositoryImage(repository_id=repository, image_id=image) for repository, image in sorted(pairs - present)],
        ignore_conflicts=True,
    )
    names = {(repositories[row.registry, row.repository].pk, tag): row for row in reversed(rows) for tag in row.tags}
    taken = set(Tag.objects.filter(repository_id__in={key[0] for key in names}).values_list("repository_id", "name"))
    now = clock.now()
    tags = [
        Tag(repository_id=repository, name=name, image=images[row.digest], updated_at=now)
        for (repository, name), row in sorted(names.items(), key=lambda item: item[0])
        if (repository, name) not in taken
    ]
    TagEvent.objects.bulk_create(
        [
            TagEvent(tag=tag, old_image=None, new_image=tag.image, via=TagEvent.Via.CRAWL, actor=None)
            for tag in Tag.objects.bulk_create(tags)
        ]
    )
    return len(pairs - present)


def _repositories(wanted: Sequence[tuple[str, str]], team_slug: str) -> dict[tuple[str, str], Repository]:
    """Return the repository of each (host, name). Missing repositories are created and owned by the team."""
    registries = {host: _registry(host) for host in sorted({host for host, _ in wanted})}
    hosts = {registry.pk: host for host, registry in registries.items()}

    def stored() -> dict[tuple[str, str], Repository]:
        rows = Repository.objects.filter(registry__in=hosts, name__in={name for _, name in wanted})
        return {(hosts[row.registry_id], row.name): row for row in rows}

    present = stored()
    missing = [key for key in wanted if key not in present]
    if not missing:
        return present
    team, _ = Team.objects.get_or_create(slug=team_slug, defaults={"name": team_slug})
    Repository.objects.bulk_create(
        [Repository(registry=registries[host], name=name, family=name, team=team) for host, name in missing],
        ignore_conflicts=True,
    )
    repositories = stored()
    events.publish(events.RepositoriesCreated(tuple(repositories[key].pk for key in missing)))
    return repositories


def _registry(host: str) -> Registry:
    endpoint = f"https://{host}"
    existing = Registry.objects.filter(endpoint__in=(endpoint, f"http://{host}")).order_by("id").first()
    if existing is not None:
        return existing
    slug = slugify(host.replace(".", "-").replace(":", "-"))[:50] or "imported"
    if Registry.objects.filter(name=slug).exists():  # different hosts can have the same slug: `a.b` and `a-b`
        slug = f"{slug}-{hashlib.sha256(host.encode()).hexdigest()[:8]}"
    return Registry.objects.create(name=slug, endpoint=endpoint)
