"""Import images from inventory files: rows become images, layers and packages; what contradicts is refused by line.

Format and rules: design.md 6, "Inventories".
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import orjson
from django.db import transaction
from django.utils.text import slugify

from accounts.models import Team, User
from lifecycle.audit import services as audit
from lifecycle.core import clock
from lifecycle.core.errors import LifecycleError, Malformed
from lifecycle.core.types import Digest, parse_repository_name, parse_tag
from lifecycle.lineage.chains import chain_ids
from lifecycle.registry.manifests import normalise_platform, parse_timestamp
from lifecycle.registry.models import Image, Layer, Registry, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.sbom.services import Content, Package, store

LINE_MAX: Final = 64 * 1024 * 1024  # bytes of one row, unpacked
BATCH: Final = 200
LAYERS_MAX: Final = 1000
PACKAGES_MAX: Final = 100_000
DEFAULT_REGISTRY: Final = "docker.io"


@dataclass(slots=True)
class Report:
    """What an import did."""

    rows: int = 0
    new_image_ids: list[int] = field(default_factory=list)
    scanned_image_ids: list[int] = field(default_factory=list)
    new_package_ids: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)  # (line number, why)


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
    packages: tuple[Package, ...] | None  # None: the row says nothing about packages


def import_inventories(path: Path, *, team_slug: str, actor: User) -> Report:
    """Import every row of `path` (JSON lines, gzip when its content is), in batches; a second time changes nothing."""
    report = Report()
    batch: list[_Row] = []
    with path.open("rb") as raw:
        for number, line in _lines(raw):
            report.rows += 1
            try:
                batch.append(_parse(number, line))
            except LifecycleError as error:
                report.refused.append((number, error.message))
            if len(batch) == BATCH:
                _import_batch(batch, report, team_slug, actor)
                batch = []
    _import_batch(batch, report, team_slug, actor)
    report.refused.sort()
    return report


def _lines(raw: BinaryIO) -> Iterator[tuple[int, bytes]]:
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_gzip else raw
    number = 0
    while line := stream.readline(LINE_MAX + 1):
        number += 1
        if len(line) > LINE_MAX:
            raise Malformed(f"Line {number} is longer than {LINE_MAX} bytes.")
        if line.strip():
            yield number, line


def _parse(number: int, line: bytes) -> _Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise Malformed("not a JSON object")
    digests, diff_ids = _layer_ids(row, "layers"), _layer_ids(row, "diff_ids")
    if digests and diff_ids and len(digests) != len(diff_ids):
        raise Malformed("layers and diff_ids are of different lengths")
    count = len(digests or diff_ids)
    sizes = row.get("layer_sizes")
    are_sizes = isinstance(sizes, list) and len(sizes) == count and all(type(size) is int for size in sizes)
    packages = row.get("packages")
    if packages is not None and (not isinstance(packages, list) or len(packages) > PACKAGES_MAX):
        raise Malformed(f"packages is not a list of at most {PACKAGES_MAX}")
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
        sizes=tuple(min(max(size, 0), 2**62) for size in sizes or ()) if are_sizes else (0,) * count,
        distro=_distro(row.get("os")),
        packages=None if packages is None else tuple(_package(item, count) for item in packages or ()),
    )


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"{key} is not a text")
    if value and "\x00" in value:
        raise Malformed(f"{key} holds a NUL")
    return value or ""


def _layer_ids(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = row.get(key) or []
    if not isinstance(value, list) or len(value) > LAYERS_MAX:
        raise Malformed(f"{key} is not a list of at most {LAYERS_MAX}")
    return tuple(Digest.parse(item if isinstance(item, str) else "?").text if item else "" for item in value)


def _platform(value: object) -> tuple[str, str, str]:
    if isinstance(value, str):
        parts = [*value.split("/"), "", "", ""]
        os, architecture, variant = parts[:3]
    elif isinstance(value, dict):
        os, architecture, variant = (str(value.get(key) or "") for key in ("os", "architecture", "variant"))
    else:
        return "", "", ""
    if architecture == "arm" and not variant:  # which one is not said: to guess v7 would be to make it up
        return os[:40], architecture, ""
    found = normalise_platform(os=os, architecture=architecture, variant=variant)
    return found.os[:40], found.architecture[:40], found.variant[:40]


def _distro(value: object) -> str:
    if not isinstance(value, dict) or not value.get("name"):
        return ""
    return f"{value['name']}-{value['version']}" if value.get("version") else str(value["name"])


def _package(item: object, layer_count: int) -> Package:
    if not isinstance(item, dict):
        raise Malformed("a package is not an object")
    layer = item.get("layer")
    return Package(
        purl=_text(item, "purl"),
        source_name=_text(item, "source_name"),
        source_version=_text(item, "source_version"),
        layer_position=layer if type(layer) is int and 0 <= layer < layer_count else None,
        version=_text(item, "version"),
    )


@transaction.atomic
def _import_batch(rows: list[_Row], report: Report, team_slug: str, actor: User) -> None:
    if not rows:
        return
    accepted = _accepted(rows, report)
    images = {image.digest: image for image in Image.objects.filter(digest__in=[row.digest for row in accepted])}
    fresh = {row.digest: row for row in reversed(accepted) if row.digest not in images}
    Image.objects.bulk_create([_image(fresh[digest]) for digest in sorted(fresh)])
    added = {image.digest: image for image in Image.objects.filter(digest__in=fresh)}
    Layer.objects.bulk_create([layer for digest in sorted(fresh) for layer in _layers(fresh[digest], added[digest])])
    images |= added
    report.new_image_ids += sorted(image.pk for image in added.values())
    placed = _place(accepted, images, team_slug)
    contents: dict[int, Content] = {}
    for row in accepted:
        image = images[row.digest]
        if row.packages is not None and image.scanned_at is None:
            contents.setdefault(image.pk, Content(row.packages, distro=row.distro))
    stored = store(contents, actor=actor)
    report.scanned_image_ids += stored.image_ids
    report.new_package_ids += stored.new_package_ids
    if added or placed or stored.image_ids:
        audit.record("inventory.imported", actor=actor, images=len(added), scanned=len(stored.image_ids), placed=placed)


def _accepted(rows: Iterable[_Row], report: Report) -> list[_Row]:
    """Return the rows that do not contradict what is known of their digest."""
    rows = list(rows)
    known: dict[str, tuple[list[str], list[str]]] = {}
    found = Layer.objects.filter(image__digest__in=[row.digest for row in rows]).order_by("image_id", "position")
    for digest, diff_id, layer in found.values_list("image__digest", "diff_id", "digest"):
        diff_ids, digests = known.setdefault(digest, ([], []))
        diff_ids.append(diff_id)
        digests.append(layer)
    accepted = []
    for row in rows:
        if row.digest not in known:
            known[row.digest] = (list(row.diff_ids), list(row.digests))
        elif row.diff_ids or row.digests:
            diff_ids, digests = known[row.digest]
            if _differ(diff_ids, row.diff_ids) or _differ(digests, row.digests):
                report.refused.append((row.line, f"{row.digest} is known with other layers"))
                continue
        accepted.append(row)
    return accepted


def _differ(left: Iterable[str], right: Iterable[str]) -> bool:
    left, right = list(left), list(right)
    return len(left) != len(right) or any(a and b and a != b for a, b in zip(left, right, strict=True))


def _image(row: _Row) -> Image:
    diff_chain, digest_chain = chain_ids(row.diff_ids), chain_ids(row.digests)
    os, architecture, variant = row.platform
    return Image(
        digest=row.digest,
        kind=Image.Kind.MANIFEST,
        media_type="",  # not said, and not to be guessed
        config_digest=row.config_digest,
        os=os,
        architecture=architecture,
        variant=variant,
        size_bytes=sum(row.sizes),
        layer_count=len(row.digests),
        diff_chain_id=_short(diff_chain[-1]) if diff_chain else "",
        digest_chain_id=_short(digest_chain[-1]) if digest_chain else "",
        created_at=parse_timestamp(row.created),
        distro=row.distro[:60],
    )


def _layers(row: _Row, image: Image) -> Iterator[Layer]:
    diff_chain, digest_chain = chain_ids(row.diff_ids), chain_ids(row.digests)
    for position, digest in enumerate(row.digests):
        yield Layer(
            image=image,
            position=position,
            digest=digest,
            diff_id=row.diff_ids[position],
            size_bytes=row.sizes[position],
            diff_chain_id=_short(diff_chain[position]),
            digest_chain_id=_short(digest_chain[position]),
        )


def _short(chain_id: str) -> str:
    return chain_id if len(chain_id) <= 71 else ""  # a lone sha512 layer


def _place(rows: list[_Row], images: Mapping[str, Image], team_slug: str) -> int:
    """Put every image into its repository, under its tags where those are free; return how many were not there."""
    repositories: dict[tuple[str, str], Repository] = {}
    for row in rows:
        key = (row.registry, row.repository)
        if key not in repositories:
            repositories[key] = _repository(*key, team_slug)
    pairs = {(repositories[row.registry, row.repository].pk, images[row.digest].pk) for row in rows}
    there = set(
        RepositoryImage.objects.filter(
            repository_id__in={pair[0] for pair in pairs}, image_id__in={pair[1] for pair in pairs}
        ).values_list("repository_id", "image_id")
    )
    RepositoryImage.objects.bulk_create(
        [RepositoryImage(repository_id=repository, image_id=image) for repository, image in sorted(pairs - there)],
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
    for tag in Tag.objects.bulk_create(tags):
        TagEvent.objects.create(tag=tag, old_image=None, new_image=tag.image, via=TagEvent.Via.CRAWL, actor=None)
    return len(pairs - there)


def _repository(host: str, name: str, team_slug: str) -> Repository:
    registry = Registry.objects.filter(endpoint__in=(f"https://{host}", f"http://{host}")).order_by("id").first()
    if registry is None:
        slug = slugify(host.replace(".", "-").replace(":", "-"))[:60] or "imported"
        registry, _ = Registry.objects.get_or_create(name=slug, defaults={"endpoint": f"https://{host}"})
    found = Repository.objects.filter(registry=registry, name=name).first()
    if found is not None:
        return found
    team, _ = Team.objects.get_or_create(slug=team_slug, defaults={"name": team_slug})
    return Repository.objects.create(registry=registry, name=name, family=name, team=team)
