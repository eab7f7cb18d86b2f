"""The findings of an image as SARIF 2.1.0, for the code scanning pages of GitHub, GitLab and others.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson
from django.conf import settings
from django.urls import reverse

from lifecycle.core.version import version
from lifecycle.evidence.findings import OPEN_STATES, Finding
from lifecycle.registry.models import Image

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: Final = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "none": "note"}
# GitHub sorts by this number, in the steps of CVSS. A severity that nobody knows has none.
_SCORES: Final = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0", "none": "0.0"}
_UNJUDGED: Final = "unjudged-package"


@dataclass(frozen=True, slots=True)
class Place:
    """Where results are: the address of the image, and what tells its results from those of other images."""

    address: str
    name: str = ""


def sarif(image: Image, findings: Iterable[Finding], *, own: Collection[str]) -> Iterator[bytes]:
    """Yield the document. What could not be judged is a result of kind `open`; what VEX decided is suppressed.

    `own` has the ids of the private advisories: only this server explains them.
    """
    return sarif_of(f"gravingdock/{image.digest}", [(Place(image.digest.replace(":", "/")), findings)], own=own)


def sarif_of(
    automation: str, items: Iterable[tuple[Place, Iterable[Finding]]], *, own: Collection[str]
) -> Iterator[bytes]:
    """Yield a document with one run over several images, image by image. The rules stand after the results.

    Only the rules are kept in memory: each vulnerability once, as severe as in the worst package. `own`: as in `sarif`.
    """
    rules: dict[str, dict[str, Any]] = {}
    order: dict[str, int] = {}
    yield orjson.dumps({"$schema": _SCHEMA, "version": "2.1.0"})[:-1] + b',"runs":[{"results":['
    is_first = True
    for place, findings in items:
        for finding in findings:
            rule = _rule(finding, own)
            order.setdefault(rule["id"], len(order))
            if _score(rule) > _score(rules.setdefault(rule["id"], rule)):
                rules[rule["id"]] = rule
            yield (b"" if is_first else b",") + orjson.dumps(_result(place, finding, order))
            is_first = False
    driver = {
        "name": "Gravingdock",
        "version": version(),
        "informationUri": settings.PUBLIC_URL,
        "rules": list(rules.values()),
    }
    rest = {"tool": {"driver": driver}, "automationDetails": {"id": automation}}
    yield b"]," + orjson.dumps(rest)[1:] + b"]}\n"


def _rule_id(finding: Finding) -> str:
    return finding.vulnerability or finding.advisory or _UNJUDGED


def _help(finding: Finding, own: Collection[str]) -> str:
    """Return the page that explains a finding: nobody but us has a page of a private advisory."""
    advisory = finding.advisory or ""
    if advisory in own:
        return f"{settings.PUBLIC_URL}{reverse('lifecycle:advisory', args=[advisory])}"
    return f"https://osv.dev/vulnerability/{quote(advisory, safe='')}"


def _rule(finding: Finding, own: Collection[str]) -> dict[str, Any]:
    name = _rule_id(finding)
    if finding.advisory is None:
        text = "A package that no advisory could be compared with. Its findings are unknown."
        return {"id": name, "shortDescription": {"text": text}}
    properties: dict[str, Any] = {"tags": ["security", "vulnerability"], "severity": finding.severity}
    if finding.severity in _SCORES:
        properties["security-severity"] = _SCORES[finding.severity]
    return {
        "id": name,
        "shortDescription": {"text": f"{name} ({finding.severity})"},
        "helpUri": _help(finding, own),
        "properties": properties,
    }


def _score(rule: dict[str, Any]) -> float:
    return float(rule.get("properties", {}).get("security-severity", -1.0))


def _result(place: Place, finding: Finding, order: dict[str, int]) -> dict[str, Any]:
    name = _rule_id(finding)
    is_open = finding.state in OPEN_STATES
    is_unknown = finding.state == "unknown"
    result: dict[str, Any] = {
        "ruleId": name,
        "ruleIndex": order[name],
        "kind": "open" if is_unknown else "fail",
        # 3.27.10: a result that is not "fail" has no level. A severity that nobody knows is no note.
        "level": "none" if is_unknown else _LEVELS.get(finding.severity, "warning"),
        "message": {"text": _text(finding)},
        "locations": [
            {
                # There is no file: the image is the artifact, and the package is where in it.
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(place.address, safe="/:@")},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [{"fullyQualifiedName": finding.purl or place.address, "kind": "module"}],
            }
        ],
        "partialFingerprints": {"vulnerabilityAndPackage/v1": f"{name} {finding.purl} {place.name}".strip()},
    }
    if not is_open and not is_unknown:
        said = finding.vex.as_json() if finding.vex is not None else {}
        names = ", ".join(each["name"] for each in finding.waivers)
        why = said.get("justification") or said.get("reason") or f"{finding.state} {names}".rstrip()
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": str(why)}]
    return result


def _text(finding: Finding) -> str:
    if not finding.purl:
        return f"The packages of the image are unknown. {finding.reason}."
    if finding.advisory is None:
        return f"{finding.purl} could not be judged: {finding.reason}."
    fix = f"fixed in {finding.fixed_version}" if finding.fixed_version else "no fix available"
    more = f" It is unknown: {finding.reason}." if finding.state == "unknown" else ""
    return f"{finding.purl} is affected by {_rule_id(finding)}, severity {finding.severity}: {fix}.{more}"
