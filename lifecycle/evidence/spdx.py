"""The packages of images as an SPDX 2.3 JSON document (https://spdx.github.io/spdx-spec/v2.3/)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson
from django.conf import settings

from lifecycle.core import clock
from lifecycle.core.version import version
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion

_DOCUMENT: Final = "SPDXRef-DOCUMENT"
_IMAGE: Final = "SPDXRef-image"
_UNKNOWN: Final = "NOASSERTION"  # clause 7.7: we make no statement


def spdx_document(
    image: Image, metadata: Mapping[str, Mapping[str, str]], packages: Iterable[PackageVersion]
) -> Iterator[bytes]:
    """Yield the document: the image, and every package that it contains, also those that cannot be judged.

    Metadata, and what is odd about a package, are annotations.
    """
    known = [f"gravingdock:{of}:{key}={text}" for of, pairs in metadata.items() for key, text in pairs.items()]
    algorithm, _, value = image.digest.partition(":")
    return _document(image.digest, f"{algorithm}/{value}", [Subject(image, image.digest, known, packages)])


@dataclass(frozen=True, slots=True)
class Subject:
    """An image of a document: how it is called, what is noted about it, and its packages."""

    image: Image
    name: str
    notes: Sequence[str]
    packages: Iterable[PackageVersion]


def spdx_of(name: str, subjects: Iterable[Subject]) -> Iterator[bytes]:
    """Yield a document about several images, image by image. A package that several have is in it once."""
    return _document(name, quote(name, safe=""), subjects)


def _document(name: str, path: str, subjects: Iterable[Subject]) -> Iterator[bytes]:
    """Yield a document. Relationships are last, so that rows are read once."""
    made_at = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    tool = f"Tool: gravingdock-{version()}"

    def annotations(comments: Iterable[str]) -> list[dict[str, str]]:
        return [
            {"annotationDate": made_at, "annotationType": "OTHER", "annotator": tool, "comment": comment}
            for comment in comments
        ]

    head: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": name,
        # Clause 6.5: unique for each document, and without a fragment.
        "documentNamespace": f"{settings.PUBLIC_URL}/spdx/{path}/{uuid.uuid4()}",
        "creationInfo": {"created": made_at, "creators": [tool]},
    }
    yield orjson.dumps(head)[:-1] + b',"packages":['
    written: set[int] = set()
    related: list[tuple[str, str, str]] = []
    for number, subject in enumerate(subjects):
        own = f"{_IMAGE}-{number}" if number else _IMAGE
        algorithm, _, value = subject.image.digest.partition(":")
        row = _package(own, subject.name, purpose="CONTAINER") | {
            "checksums": [{"algorithm": algorithm.upper(), "checksumValue": value}],
            "annotations": annotations([f"gravingdock:distro={subject.image.distro or 'unknown'}", *subject.notes]),
        }
        yield (b"," if number else b"") + orjson.dumps(row)
        related.append((_DOCUMENT, "DESCRIBES", own))
        for package in subject.packages:
            identifier = f"SPDXRef-package-{package.pk}"
            related.append((own, "CONTAINS", identifier))
            if package.pk not in written:
                written.add(package.pk)
                yield b"," + orjson.dumps(_row(package, identifier, annotations))
    yield b'],"relationships":['
    for number, (element, kind, other) in enumerate(related):
        yield (b"," if number else b"") + orjson.dumps(_related(element, kind, other))
    yield b"]}\n"


def _row(
    package: PackageVersion, identifier: str, annotations: Callable[[Iterable[str]], list[dict[str, str]]]
) -> dict[str, Any]:
    row = _package(identifier, package.name or package.purl or "unknown", purpose="LIBRARY")
    if package.version:
        row["versionInfo"] = package.version
    if package.purl.startswith("pkg:") and not any(c.isspace() for c in package.purl):
        row["externalRefs"] = [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.purl,
            }
        ]
    if package.source_name:
        row["sourceInfo"] = f"built from the source package {package.source_name} {package.source_version}".rstrip()
    if package.problem:
        row["annotations"] = annotations([f"gravingdock:problem={package.problem}"])
    return row


def _package(identifier: str, name: str, *, purpose: str) -> dict[str, Any]:
    return {
        "SPDXID": identifier,
        "name": name,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
        "primaryPackagePurpose": purpose,
    }


def _related(element: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": other}
