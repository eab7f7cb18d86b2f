"""The whole demonstration: real mirrors, builds, scans, pushes, promotions and a rebuild wave."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.demo import cast
from lifecycle.demo.images import PRODUCTS
from tests.integration.embedded.test_make_up import Home

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed: make system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the embedded builder needs root for its namespaces"),
]


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="gddemo-"))
    folder.chmod(0o755)
    home = Home(folder / "var")
    yield home
    home.down()
    shutil.rmtree(folder)


def findings(home: Home, digest: str) -> list[dict[str, str]]:
    done = home.run("manage.py", "findings", "--image", digest, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_demonstration_runs_reports_correct_results_and_runs_again(home: Home) -> None:
    done = home.run("-m", "config.embedded", "up", timeout_s=900, DEMO="1")
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((home.folder / "demo.json").read_text())
    accounts = json.loads((home.folder / "demo-accounts.json").read_text())

    assert [row["repository"] for row in document["images"]] == [product.repository for product in PRODUCTS]
    methods = {row["repository"]: row["method"] for row in document["images"]}
    assert methods == {product.repository: "build" for product in PRODUCTS} | {"shop/static": "rebase"}
    for row in document["images"]:
        before, after = (
            {(line["purl"], line["advisory"]) for line in findings(home, row[name]) if line["state"] == "open"}
            for name in ("digest_before", "digest_after")
        )
        assert (row["findings_before"], row["findings_after"]) == (len(before), len(after))
        assert row["fixed"] == sorted({pair[1] for pair in before} - {pair[1] for pair in after})
        assert row["fixed"]
        assert row["digest_after"][:19] in done.stdout
    api = next(row for row in document["images"] if row["repository"] == "shop/api")
    assert any(name.startswith("PYSEC") for name in api["fixed"])
    reached = [(p["digest"], p["from"], p["to"], p["state"]) for p in document["promotions"]]
    assert (api["digest_before"], "staging", "production", "succeeded") in reached
    assert (api["digest_after"], "staging", "production", "succeeded") in reached
    assert [row[3] for row in reached].count("open") == 1
    assert document["web"] in done.stdout
    assert accounts[cast.READER]["password"] in done.stdout
    assert "denied" in done.stdout

    assert home.run("manage.py", "demo").returncode == 0  # it already ran, so this does nothing
    assert json.loads((home.folder / "demo.json").read_text()) == document
    again = home.run("-m", "config.embedded", "demo", timeout_s=900)
    assert again.returncode == 0, again.stdout + again.stderr
    second_document = json.loads((home.folder / "demo.json").read_text())
    assert second_document["images"][0]["digest_before"] != document["images"][0]["digest_before"]
    assert json.loads((home.folder / "demo-accounts.json").read_text()) == accounts
    home.down()
    assert home.processes() == []
