"""Findings as SARIF: levels, what is unknown, and what was decided."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from lifecycle.evidence.findings import Finding
from lifecycle.evidence.sarif import sarif
from lifecycle.registry.models import Image

DIGEST = "sha256:" + "a" * 64


def finding(name: str, severity: str, state: str = "open", **more: Any) -> Finding:
    return Finding(f"pkg:pypi/{name}@1", "GHSA-1", (), None, severity, state, vulnerability="CVE-1", **more)


def run(*findings: Finding) -> dict[str, Any]:
    document = json.loads(b"".join(sarif(Image(digest=DIGEST), findings, own=())))
    assert document["version"] == "2.1.0"
    (only,) = document["runs"]
    return only


def test_each_finding_is_a_result_and_each_vulnerability_a_rule_of_its_worst_severity():
    decided: Any = SimpleNamespace(as_json=lambda: {"justification": "component_not_present", "reason": "gone"})
    made = run(
        finding("a", "low"),
        finding("b", "critical", "under_investigation"),
        finding("c", "unknown"),
        finding("d", "high", "unknown", reason="its range is unreadable"),
        finding("e", "high", "not_affected", vex=decided),
        Finding("pkg:npm/x", None, (), None, "unknown", "unknown", "no version"),
    )
    rules = made["tool"]["driver"]["rules"]
    assert [(rule["id"], rule.get("properties", {}).get("security-severity")) for rule in rules] == [
        ("CVE-1", "9.5"), ("unjudged-package", None),
    ]  # fmt: skip
    assert rules[0]["helpUri"] == "https://osv.dev/vulnerability/GHSA-1"
    assert [(one["kind"], one["level"], one["ruleIndex"], "suppressions" in one) for one in made["results"]] == [
        ("fail", "note", 0, False), ("fail", "error", 0, False), ("fail", "warning", 0, False),
        ("open", "none", 0, False), ("fail", "error", 0, True), ("open", "none", 1, False),
    ]  # fmt: skip
    assert made["results"][4]["suppressions"][0]["justification"] == "component_not_present"
    assert made["results"][5]["message"]["text"] == "pkg:npm/x could not be judged: no version."
    prints = [one["partialFingerprints"]["vulnerabilityAndPackage/v1"] for one in made["results"]]
    assert len(set(prints)) == 6


def test_no_finding_is_a_run_without_results():
    assert run()["results"] == []
