"""Decisions and documents: who may make them, who approves them, and for which images they count."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from accounts.models import Role, User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_robot
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted
from lifecycle.evidence import handlers as evidence
from lifecycle.evidence.open_findings import open_matches_in
from lifecycle.evidence.risk import refresh_risk
from lifecycle.ingest.writing import forget_manifest
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.notices.models import InboxItem
from lifecycle.registry.models import Image
from lifecycle.vex import documents, services
from lifecycle.vex.models import VexDocument, VexEffect, VexStatement
from lifecycle.vex.queries import decided_in, decisions_visible_to, documents_visible_to
from tests.clients import Caller, browser
from tests.factories import dock, trusting
from tests.factories.people import person
from tests.factories.vexing import bring_document, decision, openvex, said

pytestmark = pytest.mark.django_db
CVE = "CVE-2024-5535"


@pytest.fixture
def fleet(db):
    """Return the harbour with its people: a team `shop` on images of a team `base`."""
    made = dock.harbour()
    refresh_risk(list(Image.objects.filter(scanned_at__isnull=False).values_list("pk", flat=True)))
    shop, base = dock.team("shop"), dock.team("base")
    return made | {
        "shop": shop, "guard": person("guard", shop, "security"), "approver": person("approver", shop, "approver"),
        "keeper": person("keeper", base, "security"), "second": person("second", base, "approver"),
        "api_repository": dock.repository("shop/api"), "debian": dock.repository("base/debian"),
        "python": Image.objects.get(digest=dock.sha("base/python")),
    }  # fmt: skip


def suppressed(*images):
    """Return {image name: names of its suppressed findings}, and check the stored counts."""
    found = {}
    for image in images:
        image.refresh_from_db()
        rows = VexEffect.objects.filter(image=image, suppresses=True)
        found[image.pk] = sorted(rows.values_list("vulnerability", flat=True))
    return list(found.values())


def test_decision_takes_two_people_and_the_newest_one_counts(fleet):
    api, guard, approver = fleet["api"], fleet["guard"], fleet["approver"]
    critical = api.critical_count
    made = decision(fleet["api_repository"], by=guard, vulnerability=CVE, scope="digest", digest=api.digest)
    assert (made.state, suppressed(api)) == ("requested", [[]])
    with pytest.raises(Conflict, match="waits for approval"):
        decision(fleet["api_repository"], by=guard, vulnerability=CVE, scope="digest", digest=api.digest)
    with pytest.raises(NotPermitted, match="Someone else"):
        services.approve(made.pk, actor=guard)
    with pytest.raises(NotFound):
        services.approve(made.pk, actor=fleet["second"])
    services.approve(made.pk, actor=approver, reason="read")
    assert suppressed(api) == [[CVE]]
    assert api.critical_count == critical - 1
    # Under investigation needs nobody else, replaces the earlier decision, and the finding is open again.
    looking = services.decide(
        CVE, "under_investigation", actor=guard, scope="digest", repository=fleet["api_repository"],
        digest=api.digest, reason="Not sure.",
    )  # fmt: skip
    assert (looking.state, suppressed(api), api.critical_count) == ("live", [[]], critical)
    (found,) = {item.status for item in decided_in([api.pk], guard).values()}
    assert found == "under_investigation"
    made.refresh_from_db()
    assert (made.state, made.decision) == ("withdrawn", f"Replaced by {looking}.")
    services.withdraw(looking.pk, actor=approver, reason="nonsense")
    assert not VexEffect.objects.exists()
    with pytest.raises(IllegalTransition):
        services.withdraw(looking.pk, actor=approver)
    told = AuditEvent.objects.filter(action__startswith="vex.").order_by("pk").values_list("action", flat=True)
    assert list(told) == ["vex.requested", "vex.approved", "vex.decided", "vex.withdrawn", "vex.withdrawn"]
    rejected = decision(fleet["api_repository"], by=guard, vulnerability=CVE)
    with pytest.raises(Malformed, match="Enter a reason"):
        services.reject(rejected.pk, actor=approver, reason=" ")
    assert services.reject(rejected.pk, actor=approver, reason="no").state == "rejected"


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"status": "fine"}, Malformed, "status: choose"),
        ({"justification": ""}, Malformed, "Choose a justification"),
        ({"justification": "because"}, Malformed, "Unknown justification"),
        ({"status": "false_positive"}, Malformed, "Only not_affected has"),
        ({"reason": " "}, Malformed, "Enter a reason"),
        ({"scope": "world"}, Malformed, "scope: choose"),
        ({"scope": "team"}, Malformed, "Leave the repository out"),
        ({"scope": "digest"}, Malformed, "Name a digest"),
        ({"scope": "digest", "digest": "sha256:" + "f" * 64}, Malformed, "no image with this digest"),
        ({"package": "openssl"}, Malformed, "cannot be read"),
        ({"vulnerability": "two words"}, Malformed, "no name of a vulnerability"),
        ({"until": clock.now() - timedelta(days=1)}, Malformed, "in the future"),
    ],
)
def test_decision_that_says_too_little_is_refused(change, error, reason, fleet):
    with pytest.raises(error, match=reason):
        decision(fleet["api_repository"], by=fleet["guard"], **({"vulnerability": CVE} | change))
    assert not VexStatement.objects.exists()


def test_nobody_decides_about_images_of_others(fleet):
    guard, api = fleet["guard"], fleet["api"]
    with pytest.raises(NotPermitted):
        decision(fleet["debian"], by=guard, vulnerability=CVE)
    with pytest.raises(NotPermitted, match="Only admins"):
        services.decide(CVE, "false_positive", actor=guard, scope="all", reason="x")
    copy = dock.repository("other/copy")
    dock.push(copy, api, "1")
    with pytest.raises(Malformed, match="This image is a copy"):
        decision(copy, by=person("copier", copy.team, "security"), vulnerability=CVE, scope="digest", digest=api.digest)
    assert not VexStatement.objects.exists()
    made = decision(fleet["api_repository"], by=guard, vulnerability=CVE)
    assert list(decisions_visible_to(guard)) == [made]
    assert not decisions_visible_to(fleet["keeper"]).exists()


def test_index_that_names_the_image_of_others_gives_no_right_to_decide_about_it(fleet, settings):
    settings.VEX_SECOND_PERSON = False
    api, copy = fleet["api"], dock.repository("other/copy")
    copier = person("copier", copy.team, "security")
    dock.push(copy, api, "1")
    index = dock.index("of the copier", api)
    dock.push(copy, index, "all")
    decision(copy, by=copier, vulnerability=CVE, scope="digest", digest=index.digest)
    assert suppressed(api) == [[]]


def test_reader_of_a_copy_does_not_learn_who_decided_at_its_home(fleet):
    api, copy = fleet["api"], dock.repository("other/copy")
    dock.push(copy, api, "1")
    decision(fleet["api_repository"], by=fleet["guard"], approver=fleet["approver"], vulnerability=CVE)
    (at_home,) = decided_in([api.pk], fleet["guard"]).values()
    assert (at_home.author, at_home.reason, at_home.scope) == ("guard", "checked", "repository")
    (elsewhere,) = decided_in([api.pk], person("copier", copy.team, "security")).values()
    assert (elsewhere.id, elsewhere.author, elsewhere.reason, elsewhere.scope) == (None, "", "", "")
    assert (elsewhere.status, elsewhere.suppresses, elsewhere.is_inherited) == ("not_affected", True, False)


def test_decision_of_a_home_that_deleted_the_image_counts_no_more(fleet):
    api, copy = fleet["api"], dock.repository("other/copy")
    dock.push(copy, api, "1")
    decision(fleet["api_repository"], by=fleet["guard"], approver=fleet["approver"], vulnerability=CVE)
    assert suppressed(api) == [[CVE]]
    assert forget_manifest(fleet["api_repository"], api.digest, actor=fleet["guard"])
    assert suppressed(api) == [[]]


def test_who_can_act_as_a_robot_does_not_approve_what_it_decides(fleet):
    maker = person("maker", fleet["shop"], "owner")
    robot = create_robot(fleet["shop"].pk, actor=maker, name="bot")
    RoleGrant.objects.create(user=robot.user, team=fleet["shop"], role=Role.objects.get(slug="security"))
    made = decision(fleet["api_repository"], by=robot.user, vulnerability=CVE)
    with pytest.raises(NotPermitted, match="can act as the robot"):
        services.approve(made.pk, actor=maker)
    assert services.approve(made.pk, actor=fleet["approver"]).state == "live"


def test_decision_that_ended_helps_no_gate_before_its_images_are_counted_again(fleet):
    api = fleet["api"]
    made = decision(
        fleet["api_repository"], by=fleet["guard"], approver=fleet["approver"], vulnerability=CVE,
        until=clock.now() + timedelta(days=1),
    )  # fmt: skip
    assert CVE not in {row.advisory.vulnerability for row in open_matches_in([api.pk])}
    # Before this test began: the time of its transaction is the time of SQL.
    VexStatement.objects.filter(pk=made.pk).update(until=clock.now() - timedelta(hours=1))
    assert suppressed(api) == [[CVE]]  # still stored
    assert CVE in {row.advisory.vulnerability for row in open_matches_in([api.pk])}
    refresh_risk([api.pk])
    assert suppressed(api) == [[]]


def test_images_inherit_what_the_owner_of_their_base_decides(fleet):
    """The base's packages only, along layers and not along mere labels; a nearer decision counts more."""
    api, worker, python, old = fleet["api"], fleet["worker"], fleet["python"], fleet["old"]
    decision(fleet["debian"], by=fleet["keeper"], approver=fleet["second"], vulnerability=CVE)
    decision(fleet["debian"], by=fleet["keeper"], approver=fleet["second"], vulnerability="GHSA-j8r2-6x86-q33q")
    # Layers prove no owner: anybody can push those of a public base. Another team hears only whom it trusts.
    assert suppressed(old, python, api, worker) == [[CVE], [CVE], [], []]
    place = fleet["debian"].registry.host + "/base/*"
    trusting.source(system_user(), "for-others", place, teams=["base"])
    assert suppressed(api) == [[]]
    trusting.source(User.objects.create(username="boss", is_superuser=True), "bases", place)
    assert suppressed(old, python, api, worker) == [[CVE], [CVE], [CVE], []]
    assert {row.inherited_from_id for row in VexEffect.objects.filter(image=api)} == {old.pk}
    (seen,) = decided_in([api.pk], fleet["guard"]).values()
    assert (seen.id, seen.author, seen.reason, seen.is_inherited) == (None, "", "", True)  # the base is hidden
    (known,) = decided_in([api.pk], fleet["reader"]).values()
    assert (known.author, known.reason) == ("keeper", "checked")
    services.decide(
        CVE, "affected", actor=fleet["guard"], scope="repository", repository=fleet["api_repository"],
        reason="We call it.",
    )  # fmt: skip
    assert suppressed(python, api) == [[CVE], []]
    jobs = Image.objects.get(digest=dock.sha("shop/jobs 0"))
    dock.carry(jobs, 0, dock.package("libssl3", "3.0.11-1~deb12u2", source="openssl"))
    refresh_risk([jobs.pk])
    assert suppressed(jobs) == [[]]  # the nearest base that anybody decided about is shop/api


def test_scopes_of_a_team_and_of_all_images(fleet, settings):
    settings.VEX_SECOND_PERSON = False
    api, python, worker = fleet["api"], fleet["python"], fleet["worker"]
    services.decide(
        "GHSA-v845-jxx5-vc9f", "false_positive", actor=fleet["guard"], scope="team", team=fleet["shop"],
        reason="x", package="pkg:pypi/urllib3",
    )  # fmt: skip
    services.decide(
        CVE, "fixed", actor=system_user(), scope="all", reason="x", package="pkg:deb/debian/openssl?arch=source"
    )
    assert suppressed(api, worker, python) == [
        [CVE, "GHSA-v845-jxx5-vc9f"], [CVE, "GHSA-v845-jxx5-vc9f"], [CVE],
    ]  # fmt: skip
    # Without the package in the pattern nothing happens, and the job that looks again changes nothing.
    before = list(VexEffect.objects.order_by("pk").values_list("pk", flat=True))
    Job.objects.filter(kind="apply_vex").update(not_before=clock.now())
    for pk in Job.objects.filter(kind="apply_vex").values_list("pk", flat=True):
        running.run(pk)
    assert set(Job.objects.filter(kind="apply_vex").values_list("state", flat=True)) == {"succeeded"}
    assert list(VexEffect.objects.order_by("pk").values_list("pk", flat=True)) == before


def test_two_admins_decide_about_all_images(fleet):
    first, second = (User.objects.create_superuser(name, password="dock-side-pass") for name in ("boss", "chief"))
    made = services.decide(CVE, "false_positive", actor=first, scope="all", reason="Not this product.")
    assert f"/vex/{made.pk}/" in browser(second).get("/inbox/").content.decode()
    with pytest.raises(NotPermitted, match="Someone else"):
        services.approve(made.pk, actor=first)
    with pytest.raises(NotPermitted, match="Only admins"):
        services.approve(made.pk, actor=fleet["approver"])
    services.approve(made.pk, actor=second)
    assert suppressed(fleet["api"]) == [[CVE]]
    services.withdraw(made.pk, actor=first, reason="It is.")
    assert suppressed(fleet["api"]) == [[]]


def test_many_images_are_left_to_the_job(fleet, settings, monkeypatch):
    settings.VEX_SECOND_PERSON = False
    monkeypatch.setattr(evidence, "_AT_ONCE", 0)
    services.decide(CVE, "fixed", actor=system_user(), scope="all", reason="x")
    assert not VexEffect.objects.exists()
    running.run(Job.objects.get(kind="apply_vex").pk)
    assert suppressed(fleet["api"]) == [[CVE]]


def test_document_is_advice_until_a_second_person_accepts_it(fleet):
    api, guard, approver, shop = fleet["api"], fleet["guard"], fleet["approver"], fleet["shop"]
    host = fleet["api_repository"].registry.host
    content = openvex(
        said(CVE, {"@id": f"pkg:oci/api?repository_url={host}/shop/api",
                   "subcomponents": [{"@id": "pkg:deb/debian/libssl3"}]}),
        said("CVE-2023-5678", "pkg:deb/debian/libssl3@9"),
        said("CVE-2024-45490", "pkg:deb/debian/libexpat1", status="nonsense"),
    )  # fmt: skip
    made = bring_document(shop, by=guard, content=content)
    assert (made.state, made.statement_count, made.refused_count) == ("advice", 2, 1)
    assert made.refused == [
        ["statements[2]", "Unknown status 'nonsense'. Known are: not_affected, affected, fixed, under_investigation."]
    ]
    assert suppressed(api) == [[]]
    page = browser(fleet["reader"]).get(f"/t/shop/r/shop/api/i/{api.digest}/?tab=findings").content.decode()
    assert "Advice, not applied: fixed" in page
    with pytest.raises(Conflict, match="same document"):
        bring_document(shop, by=guard, content=content)
    with pytest.raises(NotPermitted, match="Someone else"):
        documents.accept(made.pk, actor=guard)
    with pytest.raises(NotFound):
        documents.accept(made.pk, actor=fleet["second"])
    documents.accept(made.pk, actor=approver)
    assert suppressed(api, fleet["worker"], fleet["python"]) == [[CVE], [], []]
    # A newer version is advice again; the applied one counts until it is accepted.
    newer = bring_document(
        shop, by=guard, content=openvex(said("CVE-2011-4116", "pkg:deb/debian/perl-base"), version=2)
    )
    assert suppressed(api) == [[CVE]]
    documents.accept(newer.pk, actor=approver)
    assert suppressed(api, fleet["python"]) == [["CVE-2011-4116"], []]  # python is not of the team
    made.refresh_from_db()
    assert made.state == "replaced"
    documents.withdraw_document(newer.pk, actor=guard)
    assert not VexEffect.objects.exists()
    assert documents_visible_to(guard).count() == 2
    assert not documents_visible_to(fleet["keeper"]).exists()
    with pytest.raises(NotPermitted, match="Only admins"):
        bring_document(None, by=guard)
    assert VexDocument.objects.count() == 2


def test_pages_api_and_command_line_decide(fleet, run, tmp_path):
    api, guard = fleet["api"], fleet["guard"]
    shop = browser(guard)
    page = f"/t/shop/r/shop/api/i/{api.digest}/?tab=findings"
    assert f"vulnerability={CVE}" in shop.get(page).content.decode()
    form = {"vulnerability": CVE, "status": "not_affected", "scope": "digest", "repository": "shop/api",
            "digest": api.digest, "reason": "No TLS.", "package": "pkg:deb/debian/libssl3"}  # fmt: skip
    wrong = shop.post("/vex/new/", form)
    assert (wrong.status_code, "Choose a justification" in wrong.content.decode()) == (422, True)
    made = shop.post("/vex/new/", form | {"justification": "component_not_present"})
    pk = int(made.url.rstrip("/").rpartition("/")[2])
    approver = browser(fleet["approver"])
    assert f"/vex/{pk}/" in approver.get("/inbox/").content.decode()  # in their inbox
    asked = InboxItem.objects.filter(notice__topic="vex.asked")
    assert set(asked.values_list("person__username", flat=True)) == {"approver", "shop-dev"}
    approver.post(f"/vex/{pk}/approve/", {"reason": "yes"})
    assert suppressed(api) == [[CVE]]
    told = InboxItem.objects.get(notice__topic="vex.decided")
    assert (told.person, told.notice.text) == (guard, "approver approved it. Reason: yes")
    # The notice still names it, but the list of what to decide does not.
    assert f'href="/vex/{pk}/">VEX-' not in approver.get("/inbox/").content.decode()
    affected = Caller(guard).get(f"advisories/{CVE}/images/").json()["results"]
    assert {row["repository"]: row["packages"][0]["vex"] for row in affected} == {
        "shop/api:1.0": "not_affected", "shop/worker:1.0": "", "shop/static:1.0": "",
    }  # fmt: skip
    shown = shop.get(page).content.decode()
    for text in ("Not affected", "No TLS.", "not counted as open"):
        assert text in shown
    assert Caller(guard).get(f"vex/statements/?vulnerability={CVE}").json()["results"][0]["state"] == "live"
    code, out, _ = run(guard, "vex", "list", "--json")
    assert (code, [json.loads(line)["vulnerability"] for line in out.splitlines()]) == (0, [CVE])
    code, out, err = run(guard, "vex", "decide", "CVE-2023-5678", "--status", "false_positive", "--reason", "x",
                         "--repository", "shop/api")  # fmt: skip
    assert (code, "waits for a second person" in err) == (0, True)
    other = VexStatement.objects.latest("pk")
    assert run(fleet["approver"], "vex", "approve", str(other))[0] == 0
    assert suppressed(api) == [["CVE-2023-5678", CVE]]
    assert run(guard, "vex", "withdraw", str(other), "--reason", "wrong")[0] == 0
    file = tmp_path / "vex.json"
    file.write_bytes(openvex(said("CVE-2011-4116", "pkg:deb/debian/perl-base"), said("x y", "pkg:npm/x")))
    code, out, err = run(guard, "vex", "import", file, "--team", "shop", "--json")
    assert (code, json.loads(out)["statement_count"]) == (0, 1)
    assert "refused statements[1]" in err
    name = f"VD-{json.loads(out)['id']}"
    assert run(fleet["approver"], "vex", "approve", name)[0] == 0
    assert suppressed(api) == [["CVE-2011-4116", CVE]]
    assert run(guard, "vex", "withdraw", name)[0] == 0
    assert run(guard, "vex", "reject", name, "--reason", "x")[0] == 2
    assert run(guard, "vex", "documents")[0] == 0
    with file.open("rb") as sent:
        kept = shop.post("/vex/documents/", {"file": sent, "team": "shop"})
    assert kept.status_code == 302
    assert "1 statement refused" in shop.get(kept.url).content.decode()
