"""Importing inventories: small rows for the rules, real rows for the truth."""

from __future__ import annotations

import gzip
import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from accounts.models import Team
from lifecycle.audit.models import AuditEvent
from lifecycle.lineage.models import Derivation
from lifecycle.registry.models import Image, Layer, Repository, RepositoryImage
from lifecycle.sbom import queries
from lifecycle.sbom.models import ImageInventory, Inventory, InventoryPackage, PackageVersion, Sbom
from tests.factories.dock import sha

pytestmark = pytest.mark.django_db
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "images"
DEB = "pkg:deb/debian/openssl@3.0.11-1?arch=amd64&epoch=1&distro=debian-12"


def row(name="app", **more):
    return {
        "repository": "shop/app",
        "manifest_digest": sha(name),
        "diff_ids": [sha("a"), sha("b")],
        "packages": [{"name": "openssl", "version": "3.0.11", "purl": DEB, "layer": 0}],
        **more,
    }


def write(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in rows))
    return path


def run(path, *arguments):
    out, err = StringIO(), StringIO()
    code = 0
    try:
        call_command("import_inventory", str(path), *arguments, stdout=out, stderr=err)
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def counts():
    models = (Image, Layer, Repository, RepositoryImage, PackageVersion, Inventory, InventoryPackage, ImageInventory,
              Sbom, Derivation, AuditEvent, Team)  # fmt: skip
    return {model.__name__: model.objects.count() for model in models}


def test_import_stores_image_layers_packages_and_team(tmp_path):
    code, _, _ = run(write(tmp_path, row()), "--team", "harbour")
    image = Image.objects.get(digest=sha("app"))
    assert code == 0
    assert (image.layer_count, image.package_count) == (2, 1)
    repository = Repository.objects.get()
    assert (repository.registry.host, repository.team.slug) == ("docker.io", "harbour")
    (held,) = queries.packages_of(image)
    assert (held.package.purl, held.package.version, held.layer_position) == (DEB, "1:3.0.11-1", 0)
    assert held.package.ecosystem == "Debian"


def test_import_twice_changes_nothing(tmp_path):
    path = write(tmp_path, row(), row("other", repository="shop/other", packages=[]))
    run(path)
    before = counts()
    code, _, _ = run(path)
    assert (code, counts()) == (0, before)


def test_same_digest_with_other_layers_is_refused_by_line_and_the_rest_imported(tmp_path):
    path = write(tmp_path, row(), row(diff_ids=[sha("a"), sha("x")], repository="shop/liar"), row("third"))
    code, _, err = run(path)
    assert code == 1
    assert "line 2" in err
    assert Image.objects.count() == 2
    assert not Repository.objects.filter(name="shop/liar").exists()
    code, _, err = run(write(tmp_path, row(diff_ids=[sha("a")])))  # also against what was stored before
    assert (code, "line 1" in err) == (1, True)


def test_one_digest_in_two_repositories_is_one_image(tmp_path):
    run(write(tmp_path, row(), row(repository="shop/twin")))
    assert Image.objects.count() == 1
    assert RepositoryImage.objects.count() == 2


@pytest.mark.parametrize(
    "bad",
    ["{", "[]", row(manifest_digest="sha256:1"), row(repository="../x"), row(diff_ids="x"), row(packages=[3]),
     row(layers=[sha("a")])],
)  # fmt: skip
def test_a_malformed_row_is_refused_and_the_rest_imported(tmp_path, bad):
    code, _, err = run(write(tmp_path, bad, row("good")))
    assert (code, "line 1" in err, Image.objects.count()) == (1, True, 1)


def test_packages_without_version_or_with_a_bad_purl_are_kept_and_not_judged(tmp_path):
    packages = [{"purl": "pkg:golang/./api", "version": ""}, {"purl": "pkg:deb/debian/tar?distro=debian-12"}]
    run(write(tmp_path, row(packages=packages)))
    rows = list(PackageVersion.objects.order_by("purl"))
    assert [item.purl for item in rows] == ["pkg:deb/debian/tar?distro=debian-12", "pkg:golang/./api"]
    assert all(item.problem and item.version_key is None for item in rows)


def test_images_that_share_a_layer_share_the_inventory(tmp_path):
    extra = {"purl": "pkg:pypi/requests@2.25.0", "layer": 1}
    run(write(tmp_path, row(), row("two", packages=[*row()["packages"], extra])))
    assert Inventory.objects.count() == 2
    assert ImageInventory.objects.count() == 3


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout")
    return path


def test_real_images_are_on_the_bases_that_comparing_lists_finds():
    path = real("images.jsonl.gz")
    code, _, err = run(path)
    # Line 45 says of an index's digest what is true of another platform than line 44: refused, as it should be.
    assert (code, err.count("line "), "line 45:" in err) == (1, 1, True)
    assert Image.objects.count() == 61
    with gzip.open(path) as lines:
        rows = [json.loads(line) for number, line in enumerate(lines, 1) if number != 45]
    found = set(Derivation.objects.values_list("derived__digest", "base__digest"))
    assert found == _deepest(rows, "diff_ids")
    named = set(Derivation.objects.values_list("derived__repository_images__repository__name", flat=True))
    assert named == {
        "cimg/clojure", "cimg/openjdk", "cockroachdb/cockroach", "docker/ucp-compose", "mirantis/ucp-compose",
        "newrelic/infrastructure-bundle",
    }  # fmt: skip


def _deepest(rows, key):
    """The plain way: compare lists."""
    by_digest = {item["manifest_digest"]: item[key] for item in rows}
    traps = {"sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
             "sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1"}  # fmt: skip
    pairs = set()
    for digest, layers in by_digest.items():
        found = {
            base: len(below)
            for base, below in by_digest.items()
            if 0 < len(below) < len(layers) and layers[: len(below)] == below and set(below) - traps
        }
        pairs |= {(digest, base) for base, depth in found.items() if depth == max(found.values())}
    return pairs


def test_real_dotnet_images_are_found_on_the_bases_their_builder_recorded():
    path = real("dotnet_images.jsonl")
    rows = [json.loads(line) for line in path.open()]
    assert run(path)[0] == 0
    here = {item["manifest_digest"] for item in rows}
    recorded = {
        (item["manifest_digest"], item["base"]["digest"])
        for item in rows
        if item["base"] and item["base"]["digest"] in here
    }
    found = set(Derivation.objects.values_list("derived__digest", "base__digest"))
    assert found == _deepest(rows, "layers")
    assert recorded <= found
