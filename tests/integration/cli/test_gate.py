"""`gravingdock gate`: what a pipeline is told, and what unknown means there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image
from lifecycle.sbom.models import PackageVersion
from lifecycle.sbom.packages import Package
from lifecycle.sbom.services import Content, store
from tests.factories import dock
from tests.factories.advisories import Export, record

pytestmark = pytest.mark.django_db
PACKAGES = ("openssl", "expat", "perl")


def known(export: Export, **severities: str) -> None:
    """Load three advisories: critical and low with a fix, high without one."""
    words = {"one": "CRITICAL", "two": "HIGH", "three": "LOW"} | severities
    records = [
        record("CVE-2024-1", "openssl", fixed="4", **severity(words["one"])),
        record("CVE-2024-2", "expat", events=[{"introduced": "0"}], **severity(words["two"])),
        record("CVE-2024-3", "perl", fixed="6", **severity(words["three"])),
    ]
    export.put("Debian", *[item | {"modified": clock.now().isoformat().replace("+00:00", "Z")} for item in records])
    export.sync()
    for job in Job.objects.filter(state=Job.State.WAITING, kind="match"):
        running.run(job.pk)


def severity(word: str) -> dict[str, Any]:
    return {"database_specific": {"severity": word}} if word else {}


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path / "osv")


@pytest.fixture
def reader(db, export):
    """Return a reader of shop/api, which has a critical fixable, a high and a low fixable finding."""
    reader = dock.user("reader", "viewer", of=dock.team("shop"))
    api = dock.image("api")
    packages = [Package(f"pkg:deb/debian/{name}@1?distro=debian-12", layer_position=0) for name in PACKAGES]
    store({api.pk: Content(packages, distro="debian-12")}, actor=system_user())
    dock.push(dock.repository("shop/api"), api, "1.0", reader)
    known(export)
    return reader


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ((), 3, ["CVE-2024-1", "CVE-2024-2"]),
        (("--fail-on", "critical"), 3, ["CVE-2024-1"]),
        (("--fail-on", "low"), 3, ["CVE-2024-1", "CVE-2024-2", "CVE-2024-3"]),
        (("--fail-on", "low", "--fixable"), 3, ["CVE-2024-1", "CVE-2024-3"]),
    ],
)
def test_findings_stop_a_pipeline(reader, run, arguments, code, named):
    got, out, err = run(reader, "gate", "shop/api:1.0", *arguments)
    assert got == code
    assert [name for name in ("CVE-2024-1", "CVE-2024-2", "CVE-2024-3") if name in out] == named
    assert f"{len(named)} finding{'' if len(named) == 1 else 's'} of severity" in err


def test_image_without_such_findings_passes(reader, run, export):
    known(export, one="LOW", two="MEDIUM")
    assert run(reader, "gate", "shop/api:1.0")[0] == 0
    assert run(reader, "gate", "shop/api:1.0", "--fail-on", "low")[0] == 3


def test_unknown_is_not_a_pass(reader, run):
    Image.objects.filter(digest=dock.sha("api")).update(scanned_at=None)
    code, _, err = run(reader, "gate", "shop/api:1.0", "--fail-on", "critical", "--fixable")
    assert code == 3
    assert "unknown:" in err
    scratch = dock.image("scratch")
    dock.push(dock.repository("shop/scratch"), scratch, "1.0", reader)
    assert run(reader, "gate", "shop/scratch:1.0")[0] == 3
    assert run(reader, "gate", "shop/scratch:1.0", "--allow-unknown")[0] == 0


def test_severity_that_nobody_knows_is_not_a_pass(reader, run, export):
    known(export, one="", two="", three="")
    code, _, err = run(reader, "gate", "shop/api:1.0")
    assert code == 3
    assert "3 findings without a severity" in err
    assert run(reader, "gate", "shop/api:1.0", "--allow-unknown")[0] == 0


def test_summary_is_appended_and_is_only_text(reader, run, tmp_path):
    PackageVersion.objects.filter(name="openssl").update(purl="pkg:deb/debian/x|<img>@3")
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    run(reader, "gate", "shop/api:1.0", "--summary", summary)
    text = summary.read_text()
    assert text.startswith("before\n### shop/api:1.0 does not pass")
    assert "x\\|\\<img\\>@3" in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 3
    code, _, err = run(reader, "gate", "shop/api:1.0", "--summary", tmp_path / "no" / "file")
    assert (code, "Cannot write" in err) == (1, True)


def test_json_has_all_of_it(reader, run):
    code, out, _ = run(reader, "gate", "shop/api:1.0", "--json")
    document = json.loads(out)
    assert code == 3
    assert (document["passed"], len(document["findings"]), document["digest"]) == (False, 2, dock.sha("api"))


def test_image_that_the_caller_cannot_see_is_no_pass(reader, run):
    outsider = dock.user("outsider", "viewer", of=dock.team("bank"))
    assert run(outsider, "gate", "shop/api:1.0")[0] not in {0, 3}


def sbom(path: Any, *purls: str) -> Any:
    components = [{"type": "library", "name": purl, "purl": purl} for purl in purls]
    path.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}))
    return path


def test_a_document_is_scanned_with_the_same_options_and_codes(reader, run, tmp_path, monkeypatch):
    path = sbom(tmp_path / "bom.json", *[f"pkg:deb/debian/{name}@1?distro=debian-12" for name in PACKAGES])
    summary = tmp_path / "summary.md"
    code, out, err = run(reader, "scan", path, "--fail-on", "critical", "--summary", summary)
    assert (code, "CVE-2024-1" in out, "CVE-2024-2" in out) == (3, True, False), err
    assert "does not pass" in summary.read_text()
    assert "CVE-2024-1" in summary.read_text().replace("\\", "")
    code, out, _ = run(None, "scan", path, "--fail-on", "low", "--fixable", "--json")
    document = json.loads(out)
    assert (code, {row["advisory"] for row in document["findings"]}) == (3, {"CVE-2024-1", "CVE-2024-3"})
    clean = sbom(tmp_path / "clean.json", "pkg:deb/debian/other@1?distro=debian-12")
    assert run(None, "scan", clean)[0] == 0
    code, _, err = run(None, "scan", sbom(tmp_path / "odd.json", "pkg:deb/debian/other?distro=debian-12", "none"))
    assert (code, "no package URL" in err) == (3, True), err
    assert run(None, "scan", sbom(tmp_path / "odd.json", "none"), "--allow-unknown")[0] == 0
    code, _, err = run(None, "scan", sbom(tmp_path / "empty.json"))
    assert (code, "no packages recognised" in err) == (3, True), err
    path.write_text("hello")
    code, _, err = run(None, "scan", path)
    assert (code, "neither a JSON object nor XML" in err) == (1, True), err
    assert run(None, "scan", tmp_path / "absent")[0] == 1
    assert PackageVersion.objects.filter(name="other").count() == 0  # nothing is stored
    # A folder needs syft: here a program that prints an SBOM, as syft does.
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    code, _, err = run(None, "scan", tmp_path)
    assert (code, "syft is needed" in err) == (1, True)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "syft"
    program.write_text(f"#!/bin/sh\n[ $2 = {tmp_path} ] && exec /bin/cat {clean}\nexit 9\n")
    program.chmod(0o755)
    code, _, err = run(None, "scan", tmp_path)
    assert code == 0, err
    (tmp_path / "oci-layout").write_text("{}")
    code, _, err = run(None, "scan", tmp_path)
    assert (code, "syft failed" in err) == (1, True)
