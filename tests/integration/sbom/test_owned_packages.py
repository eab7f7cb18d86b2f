"""Packages of languages that a distribution's package owns are judged as that package."""

from __future__ import annotations

import hashlib
import io
import json

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from accounts.queries import system_user
from lifecycle.advisories.services import match_packages
from lifecycle.evidence.findings import findings_of_image
from lifecycle.registry.models import Image
from lifecycle.sbom import services
from lifecycle.sbom.models import Inventory, PackageVersion
from lifecycle.sbom.packages import Package
from lifecycle.sbom.services import Content
from tests.factories import dock
from tests.factories.advisories import Export, record

pytestmark = pytest.mark.django_db

HULL = "pkg:pypi/hull@1.26.12"
OWNER = "pkg:deb/debian/python3-hull@1.26.12-1%2Bdeb12u4?arch=all&distro=debian-12&upstream=hull"
SHORT_OWNER = "pkg:deb/debian/python3-hull@1.26.12-1%2Bdeb12u4?distro=debian-12"


@pytest.fixture
def feed(tmp_path):
    export = Export(tmp_path / "export")
    export.put("PyPI", record("PYSEC-1", name="hull", ecosystem="PyPI", fixed="1.26.17"))
    export.put("Debian", record("DEBIAN-1", name="hull", fixed="1.26.12-1+deb12u4"))
    export.put("Debian", record("DEBIAN-2", name="hull", fixed="1.26.12-1+deb12u5"))
    export.sync()
    return export


def scanned(name, *packages):
    made = Image.objects.create(digest=dock.sha(name), kind=Image.Kind.MANIFEST, media_type="x", layer_count=2)
    stored = services.store({made.pk: Content(packages)}, actor=system_user())
    match_packages(stored.new_package_ids)
    made.refresh_from_db()
    return made


def lines(made):
    return [(line.purl.partition("?")[0], line.advisory, line.state) for line in findings_of_image(made)]


def test_owned_package_follows_its_distribution_and_a_copy_beside_it_is_judged(feed):
    owned, both = Package(HULL, owner=OWNER, layer_position=0), Package(HULL, layer_position=1)
    debian = Package(OWNER, layer_position=0)
    only = scanned("only", debian, owned)
    assert lines(only) == [(debian.purl.partition("?")[0], "DEBIAN-2", "open")]
    assert (only.finding_count, only.package_count) == (1, 2)
    copied = scanned("copied", debian, owned, both)
    assert [advisory for _, advisory, _ in lines(copied)] == ["DEBIAN-2", "PYSEC-1"]
    assert (copied.finding_count, copied.package_count) == (2, 3)
    assert sorted(PackageVersion.objects.filter(purl=HULL).values_list("owner", flat=True)) == ["", SHORT_OWNER]


def test_owned_package_is_unknown_if_its_owner_cannot_be_matched(feed):
    owner = "pkg:rpm/redhat/python3-hull@1.26.12-1.el9?distro=rhel-9.4"
    made = scanned("rhel", Package(owner), Package(HULL, owner=owner))
    (line,) = [line for line in findings_of_image(made) if line.purl == HULL]
    assert (line.state, line.advisory) == ("unknown", None)
    assert line.reason == "part of redhat python3-hull, which cannot be matched: unknown distribution rhel"


@pytest.mark.parametrize(
    "owner", ["nonsense", "pkg:pypi/other@1", "pkg:deb/debian/" + "a" * 600 + "@1?distro=debian-12"]
)
def test_owner_that_is_no_package_of_a_distribution_is_ignored(feed, owner):
    made = scanned("odd", Package(HULL, owner=owner))
    assert [advisory for _, advisory, _ in lines(made)] == ["PYSEC-1"]


def test_package_of_a_distribution_has_no_owner(feed):
    made = scanned("nested", Package("pkg:deb/debian/hull@1.0-1?distro=debian-12", owner=OWNER))
    assert [advisory for _, advisory, _ in lines(made)] == ["DEBIAN-1", "DEBIAN-2"]


def test_known_inventories_keep_their_digest(feed):
    """Owners are new. An inventory without one must stay equal to what earlier versions stored."""
    scanned("one", Package(HULL), Package("pkg:deb/debian/a@1?distro=debian-12", source_name="b", source_version="2"))
    deb = "pkg:deb/debian/a@1?distro=debian-12\t\tb\t2"
    expected = hashlib.sha256("\n".join(sorted([HULL, deb])).encode()).hexdigest()
    assert Inventory.objects.get().digest == f"sha256:{expected}"


def test_import_of_an_inventory_can_name_owners(feed, tmp_path):
    row = {
        "repository": "shop/api", "manifest_digest": dock.sha("imported"), "diff_ids": [dock.sha("layer")],
        "packages": [{"purl": OWNER, "layer": 0}, {"purl": HULL, "layer": 0, "owner": OWNER}],
    }  # fmt: skip
    file = tmp_path / "row.jsonl"
    file.write_text(json.dumps(row))
    call_command("import_inventory", str(file), stdout=io.StringIO())
    assert [advisory for _, advisory, _ in lines(Image.objects.get(digest=row["manifest_digest"]))] == ["DEBIAN-2"]


def test_page_and_api_say_what_an_owned_package_is_judged_as(feed):
    harbour = dock.harbour()
    image = harbour["api"]
    Image.objects.filter(pk=image.pk).update(scanned_at=None)
    services.store({image.pk: Content([Package(OWNER), Package(HULL, owner=OWNER)])}, actor=system_user())
    match_packages(PackageVersion.objects.values_list("pk", flat=True))
    client = Client()
    client.force_login(harbour["reader"])
    page = client.get(
        reverse("lifecycle:image", args=["shop", "shop/api", image.digest]), {"tab": "packages", "q": "hull"}
    )
    assert "Judged as Debian python3-hull" in " ".join(page.content.decode().split())
    found = {line["purl"]: line for line in client.get(f"/api/v1/images/{image.digest}/packages/").json()["results"]}
    assert found[HULL] == {
        "purl": HULL, "name": "hull", "version": "1.26.12", "type": "pypi", "matched_as": None,
        "judged_as": SHORT_OWNER, "problem": None,
    }  # fmt: skip
    assert found[OWNER]["matched_as"] == {
        "ecosystem": "Debian", "release": "12", "name": "hull", "version": "1.26.12-1+deb12u4",
    }  # fmt: skip
