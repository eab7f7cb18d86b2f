"""`gravingdock policy` and `gravingdock waiver`: policies as files, checks for pipelines, exceptions."""

from __future__ import annotations

import io
import json
from datetime import timedelta

import pytest
import yaml

from lifecycle.cli import client
from lifecycle.core import clock
from lifecycle.policies.models import PolicyRevision, Waiver
from lifecycle.policies.types import Scope
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.policies import ENFORCE, rule, save

pytestmark = pytest.mark.django_db
FILE = """
scope: team:shop
rules:
  - key: severe
    kind: findings
    parameters: {severity: high, fixable_only: true}
  - key: user
    kind: not_root
cases:
  - name: clean
    facts:
      platforms: [{user: "1000", sbom_days: 0}]
      findings: []
    expect: {severe: satisfied, user: satisfied}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(FILE)
    return path


def test_policy_file_is_applied_exported_and_compared(dock, run, file):
    code, out, _ = run(dock.owner, "policy", "diff", file)
    assert (code, out) == (1, "+ severe\n+ user\n")
    code, out, _ = run(dock.owner, "policy", "apply", file, "--note", "first")
    assert (code, out) == (0, "Saved revision 1 of team:shop: 2 rules.\n")
    assert PolicyRevision.objects.get().note == "first"
    assert run(dock.owner, "policy", "apply", file)[1] == "team:shop has these rules already: revision 1.\n"
    code, out, _ = run(dock.owner, "policy", "diff", file)
    assert (code, out) == (0, "No difference.\n")
    exported = yaml.safe_load(run(dock.owner, "policy", "export", "team:shop")[1])
    assert [item["key"] for item in exported["rules"]] == ["severe", "user"]
    assert exported["rules"][0]["modes"]["request"] == "observe"
    assert json.loads(run(dock.owner, "policy", "export", "team:shop", "--json")[1]) == exported
    exported["rules"][0]["modes"]["request"] = "enforce"
    file.write_text(yaml.safe_dump(exported))
    assert run(dock.owner, "policy", "diff", file)[1] == "~ severe: modes.request observe -> enforce\n"
    assert run(dock.owner, "policy", "apply", file)[0] == 0


def test_refused_file_says_why(dock, run, file, monkeypatch):
    file.write_text(FILE.replace("kind: not_root", "kind: not_root\n    modes: {request: enforce}"))
    code, _, err = run(dock.owner, "policy", "apply", file)
    assert code == client.EXIT_POLICY
    assert "user is new" in err
    assert run(dock.requester, "policy", "apply", file)[0] == client.EXIT_ERROR
    for text in ("[", "scope: 1", "scope: site\nrules: 3", "scope: site\nrules: [1]"):
        file.write_text(text)
        assert run(dock.owner, "policy", "apply", file)[0] == client.EXIT_USAGE
    monkeypatch.setattr("sys.stdin", io.StringIO("scope: team:shop"))
    assert run(dock.owner, "policy", "diff", "-")[1] == "No difference.\n"
    assert run(dock.owner, "policy", "diff", file.parent / "absent")[0] == client.EXIT_USAGE
    assert not PolicyRevision.objects.exists()


def test_cases_of_a_file_pass_or_fail_with_the_difference(dock, run, file):
    code, out, _ = run(dock.owner, "policy", "test", file)
    assert (code, out) == (0, "ok  clean\n")
    file.write_text(FILE.replace('user: "1000"', 'user: "0"'))
    code, out, err = run(dock.owner, "policy", "test", file)
    assert code == client.EXIT_ERROR
    assert out.startswith("FAILED  clean\n        user is unsatisfied, not satisfied:")
    assert "1 of 1 cases failed." in err
    assert json.loads(run(dock.owner, "policy", "test", file, "--json")[1])["passed"] is False


def test_check_exits_with_3_and_the_reasons(dock, run):
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    assert run(dock.requester, "policy", "check", "shop/api:1.0", "--env", "staging")[0] == 0
    save(Scope(dock.team), rule("severe", modes=ENFORCE), actor=dock.owner)
    code, out, err = run(dock.requester, "policy", "check", "shop/api:1.0", "--env", "staging")
    assert code == client.EXIT_POLICY == 3
    assert "CVE-2026-1 in openssl" in out
    assert "No findings: 1 finding: CVE-2026-1 in openssl." in err
    code, out, _ = run(dock.requester, "policy", "check", dock.image.digest, "--env", "staging", "--json")
    assert (code, json.loads(out)["allowed"]) == (3, False)
    assert run(dock.requester, "policy", "check", "shop/api:1.0", "--env", "qa")[0] == client.EXIT_ERROR


def test_waiver_is_requested_and_decided(dock, run):
    save(Scope(dock.team), rule("severe"), actor=dock.owner)
    guard = person("guard", dock.team, "security")
    until = (clock.now() + timedelta(days=3)).isoformat()
    code, out, _ = run(
        guard, "waiver", "request", "severe", "--team", "shop", "--environment", "staging", "--reason", "because",
        "--ticket", "OPS-1", "--until", until, "--json",
    )  # fmt: skip
    assert (code, json.loads(out)["state"]) == (0, "requested")
    made = Waiver.objects.get()
    assert run(guard, "waiver", "approve", made)[0] == client.EXIT_ERROR
    code, out, _ = run(dock.approver, "waiver", "approve", made, "--reason", "read")
    assert code == 0
    assert "approved" in out
    assert f"WV-{made.pk}" in run(dock.requester, "waiver", "list", "--state", "approved")[1]
    assert run(dock.requester, "waiver", "list", "--state", "rejected", "--json")[1] == ""
    assert run(guard, "waiver", "revoke", made.pk)[0] == 0
    assert run(guard, "waiver", "revoke", "x")[0] == client.EXIT_USAGE
    assert run(guard, "waiver", "reject", made.pk)[0] == client.EXIT_USAGE  # without a reason
