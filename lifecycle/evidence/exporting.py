"""The packages and findings of an image as files: CycloneDX, SPDX, the SBOM as its tool wrote it, VEX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from accounts.models import User
from lifecycle.advisories.queries import own_ids
from lifecycle.core import clock
from lifecycle.core.cells import cell
from lifecycle.core.errors import NotFound
from lifecycle.evidence.due import with_due_dates
from lifecycle.evidence.findings import Finding, findings_of_image, unscanned
from lifecycle.evidence.sarif import sarif
from lifecycle.evidence.spdx import spdx_document
from lifecycle.evidence.vex_export import cyclonedx_vex, openvex
from lifecycle.evidence.waived import with_waivers
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import platform_ids
from lifecycle.sbom.models import PackageVersion, Sbom

FINDING_FIELDS: Final = (
    "purl", "vulnerability", "advisory", "aliases", "severity", "severity_source", "state", "fixed_version",
    "is_exploited", "exploited_on", "exploit_due_on", "epss", "epss_percentile", "reason",
    "first_seen_at", "due_at", "vex_justification", "vex_reason", "vex_author", "vex_until",
    "waivers",
)  # fmt: skip
_PACKAGE_FIELDS: Final = ("type", "namespace", "name", "version", "source_name", "source_version", "purl", "problem")


# Metadata as `ingest.metadata.as_record` returns it: {"repository" or "image": {key: value}}.
Record = Mapping[str, Mapping[str, str]]


def file_name(repository: str, digest: str, kind: str) -> str:
    """Return the name of an exported file; it is safe in a header and on every file system."""
    return f"{repository.replace('/', '-') or 'image'}-{digest.partition(':')[2][:12]}.{kind}"


def export(image: Image, kind: str, *, metadata: Record, reader: User | None = None) -> tuple[str, Iterable[bytes]]:
    """Return (media type, parts) of an export of `image`, of all platforms of an index, with its `metadata`.

    What `reader` cannot see of decisions about bases is left out, and all of it without a reader.
    `kind` is a key of EXPORTS. Raises NotFound for another one, and while the packages of the image are unknown: an
    empty file would look like an image without findings.
    """
    if kind not in EXPORTS:
        raise NotFound(f"Unknown export. Choose one of: {', '.join(EXPORTS)}.")
    waiting = unscanned(image)
    if waiting:
        digest, reason = waiting[0]
        raise NotFound(f"The packages of {digest[:19]}… are unknown: {reason}.", code="not_scanned")
    media_type, write = EXPORTS[kind]
    return media_type, write(image, metadata, reader)


def packages_in(image: Image) -> Iterator[PackageVersion]:
    """Yield the package versions of `image`, each once, by name."""
    rows = PackageVersion.objects.filter(
        inventory_packages__inventory__image_inventories__image__in=platform_ids(image)
    ).distinct()
    return rows.order_by("name", "version", "pk").iterator(chunk_size=2000)


def _cyclonedx(image: Image, metadata: Record, _reader: User | None) -> Iterator[bytes]:
    """Yield a CycloneDX 1.5 document with every package that we know, those that cannot be judged too."""
    head = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "name": image.digest, "bom-ref": image.digest, "version": image.digest},
            "properties": [
                {"name": "gravingdock:distro", "value": image.distro},
                *(
                    {"name": f"gravingdock:{of}:{key}", "value": value}
                    for of, pairs in metadata.items()
                    for key, value in pairs.items()
                ),
            ],
        },
    }
    yield orjson.dumps(head)[:-1] + b',"components":['
    for number, package in enumerate(packages_in(image)):
        yield (b"," if number else b"") + orjson.dumps(_component(package, f"{package.pk}"))
    yield b"]}\n"


def _component(package: PackageVersion, reference: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if package.namespace:
        component["group"] = package.namespace
    source = {"gravingdock:source": package.source_name, "gravingdock:problem": package.problem}
    if properties := [{"name": name, "value": value} for name, value in source.items() if value]:
        component["properties"] = properties
    return component


def cyclonedx_of(name: str, images: Iterable[tuple[Image, str]]) -> Iterator[bytes]:
    """Yield a CycloneDX 1.5 document about several images, given with their names: each a component with its packages.

    Platforms with unknown packages are named in a property of the image: it would look empty otherwise.
    """
    head = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": clock.now().isoformat(timespec="seconds"),
            "component": {"type": "application", "name": name, "bom-ref": "gravingdock"},
        },
    }
    yield orjson.dumps(head)[:-1] + b',"components":['
    for number, (image, called) in enumerate(images):
        properties = [{"name": "gravingdock:distro", "value": image.distro}] if image.distro else []
        properties += [
            {"name": "gravingdock:unknown", "value": f"{digest}: {reason}"} for digest, reason in unscanned(image)
        ]
        component = {
            "type": "container", "bom-ref": f"{number}", "name": called, "version": image.digest,
            "properties": properties,
        }  # fmt: skip
        yield (b"," if number else b"") + orjson.dumps(component)[:-1] + b',"components":['
        for place, package in enumerate(packages_in(image)):
            yield (b"," if place else b"") + orjson.dumps(_component(package, f"{number}/{package.pk}"))
        yield b"]}"
    yield b"]}\n"


def _spdx(image: Image, metadata: Record, _reader: User | None) -> Iterator[bytes]:
    return spdx_document(image, metadata, packages_in(image))


def _as_stored(image: Image, _metadata: Record, _reader: User | None) -> Iterator[bytes]:
    """Yield the newest SBOM as its tool wrote it. Raises NotFound for an index or an import, which have none."""
    sbom = Sbom.objects.filter(image=image, format="syft-json").exclude(document=b"").order_by("-pk").first()
    if sbom is None:
        raise NotFound("No SBOM document is stored for this digest. Export CycloneDX instead.")
    return iter([zlib.decompress(bytes(sbom.document))])


def _packages_csv(image: Image, _metadata: Record, _reader: User | None) -> Iterator[bytes]:
    rows = ({name: getattr(package, name) for name in _PACKAGE_FIELDS} for package in packages_in(image))
    return csv_lines(_PACKAGE_FIELDS, rows)


def _findings_csv(image: Image, _metadata: Record, reader: User | None) -> Iterator[bytes]:
    found = with_waivers(image, with_due_dates(image, findings_of_image(image, reader=reader)), reader)
    return csv_lines(FINDING_FIELDS, (finding_row(finding) for finding in found))


def finding_row(finding: Finding) -> dict[str, Any]:
    """Return the cells of a finding, by FINDING_FIELDS."""
    line = finding.as_json() | {"aliases": " ".join(finding.aliases)}
    line["waivers"] = " ".join(each["name"] for each in finding.waivers)
    if finding.vex is not None:
        said = finding.vex.as_json()
        line |= {f"vex_{name}": said[name] for name in ("justification", "reason", "author", "until")}
    return line


def _openvex(image: Image, _metadata: Record, reader: User | None) -> Iterator[bytes]:
    return openvex(image, reader)


def _cyclonedx_vex(image: Image, _metadata: Record, reader: User | None) -> Iterator[bytes]:
    return cyclonedx_vex(image, reader)


def _findings_json(image: Image, metadata: Record, reader: User | None) -> Iterator[bytes]:
    rows = with_waivers(image, with_due_dates(image, findings_of_image(image, reader=reader)), reader)
    found = [finding.as_json() for finding in rows]
    document = {"digest": image.digest, "metadata": metadata, "findings": found}
    return iter([orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"])


def _sarif(image: Image, _metadata: Record, reader: User | None) -> Iterator[bytes]:
    return sarif(image, with_waivers(image, findings_of_image(image, reader=reader), reader), own=own_ids())


def csv_lines(fields: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the lines of a CSV file. No cell is a formula for a spreadsheet."""
    yield _line(fields)
    for row in rows:
        yield _line([cell(row.get(name, "")) for name in fields])


def _line(cells: Iterable[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)  # RFC 4180
    return buffer.getvalue().encode()


# The end of the file's name -> (media type, what writes it).
EXPORTS: Final[dict[str, tuple[str, Callable[[Image, Record, User | None], Iterator[bytes]]]]] = {
    "cdx.json": ("application/vnd.cyclonedx+json", _cyclonedx),
    "spdx.json": ("application/spdx+json", _spdx),
    "syft.json": ("application/json", _as_stored),
    "packages.csv": ("text/csv; charset=utf-8", _packages_csv),
    "findings.csv": ("text/csv; charset=utf-8", _findings_csv),
    "findings.json": ("application/json", _findings_json),
    "sarif.json": ("application/sarif+json", _sarif),
    "openvex.json": ("application/openvex+json", _openvex),
    "vex.cdx.json": ("application/vnd.cyclonedx+json", _cyclonedx_vex),
}
