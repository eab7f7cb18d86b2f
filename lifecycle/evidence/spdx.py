"""The packages of an image as an SPDX 2.3 JSON document (https://spdx.github.io/spdx-spec/v2.3/)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

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

    Metadata, and what is odd about a package, are annotations. Relationships are last, so that rows are read once.
    """
    made_at = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    tool = f"Tool: gravingdock-{version()}"

    def annotations(comments: Iterable[str]) -> list[dict[str, str]]:
        return [
            {"annotationDate": made_at, "annotationType": "OTHER", "annotator": tool, "comment": comment}
            for comment in comments
        ]

    algorithm, _, value = image.digest.partition(":")
    head: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": image.digest,
        # Clause 6.5: unique for each document, and without a fragment.
        "documentNamespace": f"{settings.PUBLIC_URL}/spdx/{algorithm}/{value}/{uuid.uuid4()}",
        "creationInfo": {"created": made_at, "creators": [tool]},
    }
    subject = _package(_IMAGE, image.digest, purpose="CONTAINER") | {
        "checksums": [{"algorithm": algorithm.upper(), "checksumValue": value}],
        "annotations": annotations(
            [
                f"gravingdock:distro={image.distro or 'unknown'}",
                *(f"gravingdock:{of}:{key}={text}" for of, pairs in metadata.items() for key, text in pairs.items()),
            ]
        ),
    }
    yield orjson.dumps(head)[:-1] + b',"packages":[' + orjson.dumps(subject)
    ids = []
    for package in packages:
        ids.append(f"SPDXRef-package-{package.pk}")
        row = _package(ids[-1], package.name or package.purl or "unknown", purpose="LIBRARY")
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
        yield b"," + orjson.dumps(row)
    yield b'],"relationships":[' + orjson.dumps(_related(_DOCUMENT, "DESCRIBES", _IMAGE))
    for one in ids:
        yield b"," + orjson.dumps(_related(_IMAGE, "CONTAINS", one))
    yield b"]}\n"


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
