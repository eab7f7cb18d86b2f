"""SBOMs that people send: kept beside our scan, which is never lost, and preferred only where the sender may speak."""

from __future__ import annotations

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from accounts.models import Role, User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core.errors import Conflict, NotFound, NotPermitted
from lifecycle.evidence.findings import findings_of_image
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Image
from lifecycle.sbom import brought, services
from lifecycle.sbom.documents import DocumentRefused
from lifecycle.sbom.models import PackageList, PackageVersion, Sbom
from lifecycle.sbom.packages import Package
from lifecycle.sbom.queries import packages_of
from lifecycle.sbom.services import Content, store
from lifecycle.trust import sboms
from tests.factories import dock

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


def document(*purls, **more) -> bytes:
    components = [
        {"type": "library", "name": purl.rpartition("/")[2].partition("@")[0], "purl": purl, **more} for purl in purls
    ]
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": components}).encode()


OURS = ("pkg:deb/debian/tar@1.34?distro=debian-12", "pkg:deb/debian/curl@7.88?distro=debian-12", "pkg:pypi/a@1")
SENT = ("pkg:deb/debian/tar@1.34?distro=debian-12", "pkg:deb/debian/curl@7.89?distro=debian-12", "pkg:pypi/b@1")


def scanned(name: str = "api") -> Image:
    image = dock.image(name)
    packages = [Package(purl, layer_position=0) for purl in OURS]
    scan = Content(packages, distro="debian-12", format="syft-json", tool="syft 1", document=b'{"a":1}')
    store({image.pk: scan}, actor=system_user())
    image.refresh_from_db()
    return image


def purls(image: Image) -> set[str]:
    return {item.package.purl for item in packages_of(image)}


@pytest.fixture
def maker(db) -> User:
    return dock.user("maker", "creator", of=dock.team("shop"))


@pytest.fixture
def image(maker) -> Image:
    image = scanned()
    dock.push(dock.repository("shop/api"), image, "1", maker)
    return image


def test_a_sent_sbom_decides_and_our_scan_is_kept_beside_it(image, maker):
    kept, is_new = brought.send(image.digest, document(*SENT, "no-purl"), actor=maker)
    assert (is_new, kept.package_count, kept.dropped_count) == (True, 3, 1)
    image.refresh_from_db()
    assert purls(image) == set(SENT)
    assert (image.package_count, image.dropped_count, image.distro) == (3, 1, "debian-12")
    assert AuditEvent.objects.get(action="image.sbom_sent").actor == maker
    assert AuditEvent.objects.get(action="image.sbom_chosen").details["why"] == "Sent by a user with image.scan."
    assert Job.objects.filter(kind="match").count() == 2  # of our scan, and of the new packages

    own = PackageList.objects.get(image=image, kind="own")
    held = PackageVersion.objects.filter(inventory_packages__inventory__in=own.inventories.values("inventory"))
    assert set(held.values_list("purl", flat=True)) == set(OURS)

    # A new scan is stored beside it: neither is lost.
    rescan = Content([Package("pkg:pypi/a@2")], format="syft-json", tool="syft 2", document=b'{"a":2}')
    store({image.pk: rescan}, actor=system_user(), replaces=True)
    assert purls(image) == set(SENT)
    assert brought.send(image.digest, document(*SENT, "no-purl"), actor=maker) == (kept, False)

    brought.withdraw(image.digest, kept.pk, actor=maker, reason="wrong build")
    image.refresh_from_db()
    assert (purls(image), image.package_count, image.dropped_count) == ({"pkg:pypi/a@2"}, 1, 0)
    assert AuditEvent.objects.get(action="image.sbom_withdrawn").reason == "wrong build"
    with pytest.raises(Conflict, match="already withdrawn"):
        brought.withdraw(image.digest, kept.pk, actor=maker)
    brought.send(image.digest, document(*SENT, "no-purl"), actor=maker)  # takes the withdrawal back
    assert purls(image) == set(SENT)


def test_what_cannot_be_judged_is_unknown(image, maker):
    brought.send(image.digest, document("pkg:pypi/loose", "pkg:npm/%zz@@1", "pkg:deb/debian/x@1"), actor=maker)
    found = {finding.purl: finding.reason for finding in findings_of_image(image)}
    assert len(found) == 3
    assert all(found.values()), found


def test_an_sbom_before_our_scan_decides_until_then_and_the_scan_still_runs(maker):
    image = dock.image("fresh")
    dock.push(dock.repository("shop/fresh"), image, "1", maker)
    kept, _ = brought.send(image.digest, document(*SENT), actor=maker)
    image.refresh_from_db()
    assert purls(image) == set(SENT)
    assert not services.is_scanned(image)
    scan = Content([Package(OURS[0])], format="syft-json", tool="syft 1", document=b"{}")
    store({image.pk: scan}, actor=system_user())
    assert (services.is_scanned(image), purls(image)) == (True, set(SENT))
    brought.withdraw(image.digest, kept.pk, actor=maker)
    assert purls(image) == {OURS[0]}


def test_without_our_scan_a_withdrawal_makes_the_packages_unknown_again(maker):
    image = dock.image("fresh")
    dock.push(dock.repository("shop/fresh"), image, "1", maker)
    kept, _ = brought.send(image.digest, document(*SENT), actor=maker)
    brought.withdraw(image.digest, kept.pk, actor=maker)
    image.refresh_from_db()
    assert (image.scanned_at, image.package_count, purls(image)) == (None, 0, set())


def test_one_team_cannot_hide_the_findings_of_another(image, maker):
    other = dock.team("other")
    thief = dock.user("thief", "creator", of=other)
    dock.push(dock.repository("other/copy"), image, "1", thief)
    kept, _ = brought.send(image.digest, document(), actor=thief)  # empty: it would hide everything
    assert purls(image) == set(OURS)
    assert sboms.standings([kept])[kept.pk].why == "Its sender cannot scan the image in every place that has it."
    assert [source.kind for source in sboms.sources_of(maker, [image])] == ["own"]  # not shown to the other team
    with pytest.raises(NotFound):
        brought.withdraw(image.digest, kept.pk, actor=maker)
    assert brought.withdraw(image.digest, kept.pk, actor=thief).withdrawn_at is not None
    both = dock.user("both", "creator", of=dock.team("shop"))
    dock.user("both", "creator", of=other)
    brought.send(image.digest, document(*SENT), actor=both)
    assert purls(image) == set(SENT)


def test_an_sbom_sent_before_another_team_has_the_image_stops_to_count_then(maker):
    image = scanned("early")
    thief = dock.user("thief", "creator", of=dock.team("other"))
    dock.push(dock.repository("other/copy"), image, "1", thief)
    brought.send(image.digest, document(), actor=thief)
    assert purls(image) == set()
    dock.push(dock.repository("shop/api"), image, "1", maker)
    assert sboms.choose_due() == 1  # the sweep; a push of a tag asks at once
    assert purls(image) == set(OURS)
    image.refresh_from_db()
    assert image.package_count == 3


def test_only_who_may_scan_can_send(image, maker):
    viewer = dock.user("viewer", "viewer", of=dock.team("shop"))
    stranger = dock.user("stranger", "creator", of=dock.team("other"))
    with pytest.raises(NotPermitted, match=r"image\.scan"):
        brought.send(image.digest, document(), actor=viewer)
    with pytest.raises(NotFound):
        brought.send(image.digest, document(), actor=stranger)
    with pytest.raises(DocumentRefused, match="/components is not a list"):
        brought.send(image.digest, b'{"bomFormat":"CycloneDX","specVersion":"1.5","components":1}', actor=maker)
    raw = document(*OURS)
    Sbom.objects.filter(image=image).update(digest=dock.sha(raw.decode()))
    with pytest.raises(Conflict, match="This is the document of our own scan"):
        brought.send(image.digest, raw, actor=maker)
    assert PackageList.objects.exclude(kind="own").count() == 0


def test_an_index_takes_it_for_its_only_platform(image, maker):
    alone, both = dock.index("one", image), dock.index("two", image, dock.image("arm", architecture="arm64"))
    for index in (alone, both):
        dock.push(dock.repository("shop/api"), index, index.digest[7:12], maker)
    assert brought.send(alone.digest, document(*SENT), actor=maker)[0].image == image
    with pytest.raises(Conflict, match="linux/arm64"):
        brought.send(both.digest, document(*SENT), actor=maker)


def test_old_ones_make_room_but_never_the_one_in_use(image, maker, monkeypatch):
    monkeypatch.setattr(brought, "KEPT_MAX", 2)
    for number in range(4):
        brought.send(image.digest, document(f"pkg:pypi/a@{number}"), actor=maker)
    assert purls(image) == {"pkg:pypi/a@3"}
    assert PackageList.objects.filter(image=image).exclude(kind="own").count() == 2
    gone = AuditEvent.objects.filter(action="image.sbom_withdrawn", reason__startswith="Only the newest")
    assert gone.count() == 2
    assert PackageList.objects.filter(image=image, kind="own").exists()


def test_page_and_command_show_the_sources_and_the_differences(image, maker, run, tmp_path):
    path = tmp_path / "bom.json"
    path.write_bytes(document(*SENT, "no-purl"))
    code, out, err = run(maker, "image", "sbom", "send", path, "shop/api:1")
    assert code == 0, err
    assert "3 packages. It decides what packages the image has: Sent by a user with image.scan." in out
    assert "only here 1, only there 1, in another version 1, the same 1." in out
    assert "/components/3" in err
    code, out, _ = run(None, "image", "sbom", "list", "shop/api:1", "--json")
    rows = [json.loads(line) for line in out.splitlines()] if out.startswith("{") else json.loads(out)
    assert [(row["kind"], row["is_used"]) for row in rows] == [("sent", True), ("own", False)]

    client = Client()
    client.force_login(maker, backend=BACKEND)
    page = reverse("lifecycle:image", args=["shop", "shop/api", image.digest])
    shown = client.get(page, {"tab": "sboms"}).content.decode()
    for words in ("sent by maker", "In use", "pypi", "7.89", "7.88", "1 without a package URL", "/components/3"):
        assert words in shown, words
    address = reverse("lifecycle:image-send-sbom", args=["shop", "shop/api", image.digest])
    refused = client.post(address, {"platform": image.digest, "file": SimpleUploadedFile("x", b"hello")})
    assert refused.status_code == 422
    assert "neither a JSON object nor XML" in refused.content.decode()
    sent = client.post(address, {"platform": image.digest, "file": SimpleUploadedFile("x", document(*OURS))})
    assert sent.status_code == 302
    assert purls(image) == set(OURS)
    code, out, err = run(None, "image", "sbom", "withdraw", "shop/api:1", rows[0]["id"])
    assert (code, "It does not decide: It is withdrawn." in out) == (0, True), (out, err)


def test_right_in_some_repositories_decides_about_no_others_and_withdraws_nothing(maker):
    image, team = scanned(), dock.team("shop")
    dock.push(dock.repository("shop/api"), image, "1")
    own, _ = brought.send(image.digest, document(*SENT), actor=maker)
    sboms.choose(image.pk)
    limited = User.objects.create(username="limited")
    role = Role.objects.get(slug="creator")
    RoleGrant.objects.create(user=limited, team=team, role=role, repository_pattern="shop/sandbox")
    dock.push(dock.repository("shop/sandbox"), image, "1")
    other, _ = brought.send(image.digest, document("pkg:pypi/harmless@1"), actor=limited)
    sboms.choose(image.pk)
    assert purls(image) == set(SENT)
    assert other.team_ids == []
    with pytest.raises((NotPermitted, NotFound)):
        brought.withdraw(image.digest, own.pk, actor=limited)
    assert brought.withdraw(image.digest, other.pk, actor=limited).withdrawn_at is not None
