"""Importing inventories: small rows for the rules, real rows for the truth."""

from __future__ import annotations

import gzip
import json
import os
import random
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from accounts.models import Team
from lifecycle.advisories.models import Advisory, AffectedInterval, Feed, Match
from lifecycle.audit.models import AuditEvent
from lifecycle.evidence import handlers, risk
from lifecycle.evidence.findings import findings_of_image
from lifecycle.ingest.handlers import crawl_all
from lifecycle.jobs.models import Job
from lifecycle.lineage.models import Derivation
from lifecycle.registry.models import Image, Layer, Registry, Repository, RepositoryImage
from lifecycle.sbom import inventories, queries
from lifecycle.sbom.models import ImageInventory, Inventory, InventoryPackage, PackageVersion, Sbom
from tests.factories.advisories import Export, record
from tests.factories.dock import image, index, sha

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


def test_new_package_versions_are_matched_and_counted_at_once_without_a_job(tmp_path, monkeypatch):
    counted = []
    refresh = risk.refresh_risk
    monkeypatch.setattr(handlers, "refresh_risk", lambda ids: (counted.append(sorted(ids)), refresh(ids)))
    run(write(tmp_path, row("app"), row("other", layers=[sha("c"), sha("d")], diff_ids=[])))
    images = Image.objects.order_by("pk")
    assert counted == [[image.pk for image in images]]
    assert all(image.risk_at is not None and image.unjudged_count == 1 for image in images)  # there is no feed
    assert not PackageVersion.objects.filter(is_unmatched=True).exists()
    assert not Job.objects.filter(kind="match").exists()


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


def test_what_several_rows_say_of_one_digest_adds_up_whatever_their_order(tmp_path):
    base = {"repository": "shop/base", "manifest_digest": sha("base"), "layers": [sha("za"), None]}
    more = {**base, "layers": [None, sha("zb")], "diff_ids": [sha("a"), sha("b")]}
    app = {"repository": "shop/app", "manifest_digest": sha("app"), "layers": [sha("za"), sha("zb"), sha("zc")]}
    twin = {"repository": "shop/twin", "manifest_digest": sha("twin"), "diff_ids": [sha("a"), sha("b"), sha("c")]}
    seen = []
    for order in ([base, more, app, twin], [twin, app, more, base], [app, base, twin, more]):
        for item in order:  # each in a run of its own
            assert run(write(tmp_path, item))[0] == 0
        seen.append(
            (set(Derivation.objects.values_list("derived__digest", "base__digest")),
             list(Layer.objects.filter(image__digest=sha("base")).values_list("digest", "diff_id")))
        )  # fmt: skip
        before = counts()
        run(write(tmp_path, *order))
        assert counts() == before
        for model in (Derivation, RepositoryImage, Image):
            model.objects.all().delete()
    assert seen[0] == (
        {(sha("app"), sha("base")), (sha("twin"), sha("base"))},
        [(sha("za"), sha("a")), (sha("zb"), sha("b"))],
    )
    assert seen == [seen[0]] * 3


def test_a_digest_that_is_an_index_or_was_read_from_a_registry_keeps_what_is_known(tmp_path):
    shipped = image("shipped", layers=2)
    Image.objects.filter(pk=shipped.pk).update(manifest=b"{}")
    Layer.objects.filter(image=shipped).update(diff_id="")
    listed = index("listed", shipped)
    code, _, err = run(
        write(tmp_path, row(manifest_digest=listed.digest), row(manifest_digest=shipped.digest, packages=None))
    )
    assert (code, err.count("line")) == (1, 1)
    assert "line 1: " + listed.digest + " is stored as an index" in err
    assert set(Layer.objects.filter(image=shipped).values_list("diff_id", flat=True)) == {""}


def test_a_line_that_is_too_long_is_refused_and_the_next_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(inventories, "LINE_MAX", 2000)
    code, _, err = run(write(tmp_path, row(padding="x" * 7000), row("good"), row("last", padding="x" * 1999)))
    assert (code, err.splitlines()) == (1, [f"line {number}: longer than 2000 bytes" for number in (1, 3)])
    assert Image.objects.get().digest == sha("good")


def test_a_compressed_file_that_was_cut_off_counts_up_to_there(tmp_path):
    content = gzip.compress(json.dumps(row()).encode() + b"\n" + os.urandom(50_000).hex().encode())
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(content[:20_000])
    code, out, err = run(path)
    assert (code, Image.objects.count()) == (1, 1)
    assert "line 2: the file cannot be read from here" in err
    assert "1 new images" in out


def test_a_run_that_is_cut_short_leaves_no_image_without_its_derivation_and_matches(tmp_path, monkeypatch):
    monkeypatch.setattr(inventories, "BATCH", 2)
    rows = [row("base", diff_ids=[sha("a")]), row("app"), row("third"), row("fourth")]
    feed = Feed.objects.create(name="test", location="x")
    known = Advisory.objects.create(feed=feed, osv_id="A-1", directory="", modified="")
    AffectedInterval.objects.create(advisory=known, ecosystem="Debian", release="12", name="openssl", scheme="dpkg")
    whole = inventories._add_to_repositories

    def broken(rows, images, team_slug):
        if rows[0].line > 2:
            raise ZeroDivisionError
        return whole(rows, images, team_slug)

    monkeypatch.setattr(inventories, "_add_to_repositories", broken)
    with pytest.raises(ZeroDivisionError):
        run(write(tmp_path, *rows))
    assert Image.objects.count() == 2
    assert list(Derivation.objects.values_list("derived__digest", "base__digest")) == [(sha("app"), sha("base"))]
    assert Match.objects.get().advisory == known
    assert set(Image.objects.values_list("unknown_count", flat=True)) == {1}


def test_two_hosts_that_look_alike_are_two_registries(tmp_path):
    run(write(tmp_path, row(registry="a.b:5000"), row("two", registry="a-b-5000"), row("three", registry="a.b:5000")))
    assert set(Repository.objects.values_list("registry__endpoint", "name")) == {
        ("https://a.b:5000", "shop/app"), ("https://a-b-5000", "shop/app"),
    }  # fmt: skip


def test_a_registry_that_a_file_merely_named_is_never_crawled(tmp_path):
    run(write(tmp_path, row(registry="mcr.example.com", tags=["1.0"])))
    registry("known", username="robot", is_added=True)
    crawl_all()
    crawled = Registry.objects.filter(pk__in=Job.objects.filter(kind="crawl").values("subject_id"))
    assert set(crawled.values_list("is_managed", "username")) == {(True, ""), (False, "robot")}
    assert Registry.objects.count() == 3


def registry(name, **more):
    return Registry.objects.create(name=name, endpoint=f"https://{name}.example.com", **more)


def test_odd_but_well_formed_rows_are_imported(tmp_path):
    odd = row(
        "odd", tag="1.0", platform={"os": "li\x00nux", "architecture": "amd64"}, os={"name": "x\x00y", "version": 3},
        layer_sizes=[2**70, -1], created="never", base={"digest": "nonsense"}, unknown={"a": [1]},
    )  # fmt: skip
    code, _, err = run(write(tmp_path, odd, row("none", diff_ids=None, packages=[])))
    assert (code, err) == (0, "")
    assert Image.objects.get(digest=sha("odd")).distro == "xy-3"
    assert Image.objects.get(digest=sha("none")).layer_count == 0


def test_packages_without_version_or_with_a_bad_purl_are_kept_and_not_judged(tmp_path):
    packages = [{"purl": "pkg:golang/./api", "version": ""}, {"purl": "pkg:deb/debian/tar?distro=debian-12"}]
    run(write(tmp_path, row(packages=packages)))
    rows = list(PackageVersion.objects.order_by("purl"))
    assert [item.purl for item in rows] == ["pkg:deb/debian/tar?distro=debian-12", "pkg:golang/./api"]
    assert all(item.problem and item.version_key is None for item in rows)


@pytest.mark.parametrize(
    "purl", ["pkg:npm/a%00b@1", "pkg:rpm/x/y@1-1?epoch=%C2%B2", "pkg:npm/a%00b", "pkg:rpm/x/y?epoch=%C2%B2"]
)
def test_a_purl_that_decodes_to_what_nothing_can_store_ends_no_import(tmp_path, purl):
    code, _, err = run(write(tmp_path, row(packages=[{"purl": purl, "version": "2"}, {"purl": "pkg:pypi/idna@3.14"}])))
    assert (code, err) == (0, "")
    assert PackageVersion.objects.get(purl=purl).problem
    assert PackageVersion.objects.get(purl="pkg:pypi/idna@3.14").version_key


LODASH, SSL = "pkg:npm/lodash", "pkg:deb/debian/libssl3@3.0.11-1?distro=debian-12"


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize(
    ("healthy", "affected"),
    [
        ({"purl": LODASH, "version": "4.17.21"}, {"purl": LODASH, "version": "4.17.20"}),
        ({"purl": LODASH, "version": ""}, {"purl": LODASH, "version": "4.17.20"}),
        ({"purl": SSL, "version": "3.0.11-1"}, {"purl": SSL, "version": "3.0.11-1", "source_name": "openssl"}),
        (
            {"purl": SSL, "source_name": "openssl", "source_version": "3.0.14-1"},
            {"purl": SSL, "source_name": "openssl", "source_version": "3.0.11-1"},
        ),
    ],
)
def test_what_a_row_says_beside_the_purl_decides_for_its_own_image(tmp_path, healthy, affected, is_reversed):
    export = Export(tmp_path / "export")
    export.put("Debian", record("DSA-1", name="openssl"))
    export.put("npm", record("GHSA-1", name="lodash", ecosystem="npm", fixed="4.17.21"))
    export.sync()
    rows = [row("healthy", packages=[{**healthy, "layer": 0}]), row("affected", packages=[{**affected, "layer": 0}])]
    path = write(tmp_path, *(rows[::-1] if is_reversed else rows))
    assert run(path)[0] == 0

    def findings(name):
        return [(item.purl, item.advisory) for item in findings_of_image(Image.objects.get(digest=sha(name)))
                if item.advisory is not None]  # fmt: skip

    assert findings("healthy") == []
    assert findings("affected") == [(affected["purl"], "GHSA-1" if affected["purl"] == LODASH else "DSA-1")]
    assert [Image.objects.get(digest=sha(name)).package_count for name in ("healthy", "affected")] == [1, 1]
    before = counts()
    Image.objects.update(scanned_at=None)
    assert run(path)[0] == 0
    after = counts()
    assert {**after, "AuditEvent": 0} == {**before, "AuditEvent": 0}


def test_what_the_purl_says_itself_goes_before_the_row_and_is_one_package(tmp_path):
    upstream = "pkg:deb/debian/libssl3@3.0.11-1?distro=debian-12&upstream=openssl"
    packages = [
        {"purl": "pkg:npm/lodash@4.17.20", "version": "4.17.20"},
        {"purl": "pkg:npm/lodash@4.17.20", "version": "9"},
        {"purl": "pkg:npm/%40babel/core@7.0.0", "source_name": "x"},
        {"purl": "pkg:npm/%40babel/core@7.0.0"},
        {"purl": upstream, "source_name": "openssl"},
        {"purl": upstream},
        {"purl": "pkg:npm/long", "version": "1" * 2400},
    ]
    assert run(write(tmp_path, row("one", packages=packages)))[0] == 0
    assert PackageVersion.objects.count() == Image.objects.get().package_count == 4


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


EMPTY_TAR = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
SMALL = "sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1"


def made_up_rows(rnd):
    """Return rows of images that stand on one another: some say diff ids, some digests, some both, some with gaps."""
    truth = []
    for number in range(45):
        layers = list(rnd.choice(truth)[1]) if truth and rnd.random() < 0.75 else []
        if layers and rnd.random() < 0.2:
            layers = layers[: rnd.randrange(len(layers))]
        for _ in range(rnd.choice([0, 0, 1, 1, 2, 3])):
            name = rnd.randrange(30)
            pair = (sha(f"d{name}"), sha(f"c{name}-{rnd.randrange(2)}"))
            layers.append((EMPTY_TAR, SMALL) if rnd.random() < 0.2 else pair)
        truth.append((sha(f"image {number}"), layers))
    rows = []
    for digest, layers in truth:
        said = rnd.choice([("diff_ids", "layers"), ("diff_ids", "layers"), ("diff_ids",), ("layers",), ()])
        for keys in (said, rnd.choice([(), (), (), ("diff_ids",), ("layers",)])):
            gap = rnd.random() < 0.1
            columns = {
                key: [None if gap and rnd.random() < 0.3 else pair[key == "layers"] for pair in layers] for key in keys
            }
            rows.append({"repository": "shop/app", "manifest_digest": digest, **columns})
    return rows


def bases_by_comparing_lists(rows):
    """The rules of docs/explanation/lineage.md, the plain way."""
    known = {}
    for item in rows:
        mine = known.setdefault(item["manifest_digest"], {"diff_ids": [], "layers": []})
        for key, value in mine.items():
            said = item.get(key) or []
            mine[key] = [a or b for a, b in zip(value, said, strict=True)] if value and said else value or said
    pairs = []
    for digest, mine in known.items():
        depths = {}
        for other, below in known.items():
            key = "diff_ids" if any(mine["diff_ids"]) and any(below["diff_ids"]) else "layers"
            prefix, whole = below[key], mine[key]
            if other != digest and 0 < len(prefix) < len(whole) and prefix == whole[: len(prefix)] and all(prefix):
                depths[other] = len(prefix) if set(prefix) - {EMPTY_TAR, SMALL} else 0
        pairs += [(digest, other) for other, depth in depths.items() if depth and depth == max(depths.values())]
    return sorted(pairs)


@pytest.mark.parametrize("seed", [1, 5, 6, 9])
def test_made_up_images_stand_on_what_comparing_lists_finds_whatever_the_order(tmp_path, seed):
    rnd = random.Random(seed)
    rows = made_up_rows(rnd)
    expected = bases_by_comparing_lists(rows)
    rnd.shuffle(rows)
    for part in (rows[::2], rows[1::2]):
        assert run(write(tmp_path, *part))[0] == 0
    out = StringIO()
    call_command("lineage", "--json", stdout=out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["image"], line["base"]) for line in lines] == expected
    assert len(expected) > 10
