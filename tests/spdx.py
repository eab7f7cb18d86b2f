"""The rules of SPDX 2.3 for the parts of a document that we write, in our own words.

Source: https://spdx.github.io/spdx-spec/v2.3/, clauses 6 to 12; a number in a comment is its clause.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from jsonschema import Draft202012Validator

_MOMENT: Final = r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z$"  # 6.9: UTC, whole seconds
_CREATOR: Final = r"^(Tool: .+-.+|(Person|Organization): .+)$"  # 6.8
_TEXT: Final = {"type": "string", "minLength": 1}
_ID: Final = {"type": "string", "pattern": "^SPDXRef-[a-zA-Z0-9.-]+$"}  # 6.3, 7.2


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
        "additionalProperties": False,
    }


_ANNOTATION: Final = _object(  # 12
    {
        "annotationDate": {"pattern": _MOMENT},
        "annotationType": {"enum": ["OTHER", "REVIEW"]},
        "annotator": {"pattern": _CREATOR},
        "comment": _TEXT,
    }
)
_PACKAGE: Final = _object(
    {"SPDXID": _ID, "name": _TEXT, "downloadLocation": _TEXT},  # 7.1, 7.2, 7.7
    {
        "versionInfo": _TEXT,
        "filesAnalyzed": {"const": False},  # 7.8: true would need a verification code and files
        "licenseConcluded": {"const": "NOASSERTION"},
        "licenseDeclared": {"const": "NOASSERTION"},
        "copyrightText": {"const": "NOASSERTION"},
        "primaryPackagePurpose": {"enum": ["CONTAINER", "LIBRARY"]},  # 7.24
        "sourceInfo": _TEXT,
        "checksums": {  # 7.10
            "type": "array",
            "items": _object(
                {"algorithm": {"enum": ["SHA256", "SHA512"]}, "checksumValue": {"pattern": "^([0-9a-f]{64}){1,2}$"}}
            ),
        },
        "externalRefs": {  # 7.21, annex F.3.5
            "type": "array",
            "items": _object(
                {
                    "referenceCategory": {"const": "PACKAGE-MANAGER"},
                    "referenceType": {"const": "purl"},
                    "referenceLocator": {"pattern": r"^pkg:[^\s]+$"},
                }
            ),
        },
        "annotations": {"type": "array", "items": _ANNOTATION},
    },
)
_SCHEMA: Final = _object(
    {
        "spdxVersion": {"const": "SPDX-2.3"},
        "dataLicense": {"const": "CC0-1.0"},  # 6.2
        "SPDXID": {"const": "SPDXRef-DOCUMENT"},  # 6.3
        "name": _TEXT,
        "documentNamespace": {"type": "string", "pattern": r"^[a-z][a-z0-9+.-]*:[^#\s]+$"},  # 6.5: a URI without "#"
        "creationInfo": _object(
            {
                "created": {"pattern": _MOMENT},
                "creators": {"type": "array", "minItems": 1, "items": {"pattern": _CREATOR}},
            }
        ),
        "packages": {"type": "array", "minItems": 1, "items": _PACKAGE},
        "relationships": {
            "type": "array",
            "items": _object(
                {
                    "spdxElementId": _ID,
                    "relationshipType": {"enum": ["DESCRIBES", "CONTAINS"]},  # 11.1
                    "relatedSpdxElement": _ID,
                }
            ),
        },
    }
)


def spdx_faults(document: dict[str, Any]) -> list[str]:
    """Return what is wrong in a document, one sentence each; [] for a valid one."""
    errors = Draft202012Validator(_SCHEMA).iter_errors(document)
    faults = [f"/{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors]
    ids = Counter([document.get("SPDXID"), *(row.get("SPDXID") for row in document.get("packages", ()))])
    faults += [f"{name} is there twice" for name, count in ids.items() if count > 1]
    relations = document.get("relationships", ())
    for row in relations:
        faults += [
            f"{row[end]} names nothing" for end in ("spdxElementId", "relatedSpdxElement") if row[end] not in ids
        ]
    kinds = [(row["spdxElementId"], row["relationshipType"]) for row in relations]
    if ("SPDXRef-DOCUMENT", "DESCRIBES") not in kinds:  # 11.1: needed as soon as there are several packages
        faults.append("The document describes nothing")
    return faults
