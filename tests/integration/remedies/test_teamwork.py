"""What teams do about remedies: assign, snooze and comment. It survives when the remedies are found again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction

from accounts.models import Role
from accounts.queries import system_user
from lifecycle.advisories.models import Match
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound, NotPermitted
from lifecycle.environments.models import Environment, Slot
from lifecycle.notices.models import InboxItem
from lifecycle.registry.models import Image
from lifecycle.remedies import services, teamwork
from lifecycle.remedies.models import Remedy, TeamFix
from lifecycle.remedies.queries import ALL, ASSIGNED, MINE, ONLY, UNASSIGNED, Choice, groups_for
from tests.clients import Caller, browser
from tests.factories import dock

pytestmark = pytest.mark.django_db


@pytest.fixture
def fleet(db):
    made = dock.harbour()
    find_all()
    made["owner"] = dock.user("boss", "owner", of=dock.team("shop"))
    made["viewer"] = dock.user("viewer", "viewer", of=dock.team("shop"))
    return made


def find_all():
    ids, _ = services.to_find(clock.now())
    with transaction.atomic():
        return services.find(ids)


def key_of(package):
    return Remedy.objects.get(package_name=package, repository__name="shop/api").key


def keys(actor, **choice):
    return {group.key for group in groups_for(actor, Choice(**choice)).groups}


def test_a_person_is_assigned_told_and_finds_it(fleet):
    owner, viewer, key = fleet["owner"], fleet["viewer"], key_of("urllib3")
    teamwork.assign(key, actor=owner, person="viewer")
    assert keys(viewer, who=MINE) == {key}
    assert keys(owner, who=MINE) == set()
    assert keys(owner, who=ASSIGNED) == {key}
    assert key not in keys(owner, who=UNASSIGNED)
    item = InboxItem.objects.get(person=viewer, notice__topic="fix.assigned")
    assert (item.notice.subject, item.notice.link) == ("Fix for shop: urllib3", f"/fixes/{key}/")
    event = AuditEvent.objects.get(action="fix.assigned")
    assert (event.actor_name, event.team.slug, event.details["person"]) == ("boss", "shop", "viewer")
    teamwork.assign(key, actor=owner, person="viewer")  # again: nothing changes, nobody is told twice
    assert AuditEvent.objects.filter(action="fix.assigned").count() == 1
    teamwork.assign(key, actor=owner)
    assert keys(viewer, who=MINE) == set()
    assert AuditEvent.objects.filter(action="fix.unassigned").count() == 1


def test_a_team_is_assigned(fleet):
    owner, key = fleet["owner"], key_of("urllib3")
    member = dock.user("member", "maintainer", of=dock.team("shop"))
    teamwork.assign(key, actor=owner, to_team="shop")
    assert keys(member, who=MINE) == {key}
    told = InboxItem.objects.filter(notice__topic="fix.assigned").values_list("person__username", flat=True)
    assert sorted(told) == ["member", "shop-dev"]  # who answers for images of the team, but not who did it
    with pytest.raises(Malformed, match="not both"):
        teamwork.assign(key, actor=owner, person="viewer", to_team="shop")
    dock.team("bank")
    with pytest.raises(Malformed, match="No team that you can see"):
        teamwork.assign(key, actor=owner, to_team="bank")


def test_only_people_who_see_the_images_are_assigned(fleet):
    outsider = dock.user("outsider", "owner", of=dock.team("bank"))
    key = key_of("urllib3")
    errors = []
    for name in ("outsider", "nobody-at-all"):
        with pytest.raises(Malformed) as caught:
            teamwork.assign(key, actor=fleet["owner"], person=name)
        errors.append(caught.value.message)
    assert errors[0] == errors[1]  # an account elsewhere is not told apart
    with pytest.raises(NotFound):
        teamwork.assign(key, actor=outsider, person="viewer")
    with pytest.raises(NotPermitted, match=r"runtime\.manage"):
        teamwork.assign(key, actor=fleet["viewer"], person="viewer")
    assert not TeamFix.objects.filter(person__isnull=False).exists()
    teamwork.assign(key, actor=fleet["owner"], person="viewer")
    assert TeamFix.objects.get().person == fleet["viewer"]


def test_a_right_in_one_of_several_repositories_is_not_enough(fleet):
    key = key_of("urllib3")
    repositories = set(Remedy.objects.filter(key=key).values_list("repository__name", flat=True))
    assert repositories == {"shop/api", "shop/worker"}
    part = dock.user("part")
    role = Role.objects.get(slug="owner")
    RoleGrant.objects.create(user=part, role=role, team=dock.team("shop"), repository_pattern="shop/api")
    with pytest.raises(NotPermitted):
        teamwork.snooze(key, actor=part, until=clock.now() + timedelta(days=1))
    Remedy.objects.filter(key=key, repository__name="shop/worker").delete()
    teamwork.snooze(key, actor=part, until=clock.now() + timedelta(days=1))
    assert TeamFix.objects.get().snoozed_by == part


def test_a_snooze_is_for_one_team_and_ends_by_itself(fleet):
    owner, reader, key = fleet["owner"], fleet["reader"], key_of("perl-base")
    with pytest.raises(Malformed, match="Several teams"):
        teamwork.snooze(key, actor=reader, until=clock.now() + timedelta(days=1))
    before = next(group for group in groups_for(reader, Choice()).groups if group.key == key)
    row = teamwork.snooze(key, actor=owner, team="shop", until=clock.now() + timedelta(days=3), reason="Later.")
    assert key not in keys(owner)
    assert keys(owner, snoozed=ONLY) == {key}
    assert key in keys(owner, snoozed=ALL)
    after = next(group for group in groups_for(reader, Choice()).groups if group.key == key)
    assert after.images < before.images  # the images of the other team stay
    assert "shop" not in after.teams
    assert [(work.team, work.is_snoozed, work.reason) for work in after.work] == [("shop", True, "Later.")]
    TeamFix.objects.filter(pk=row.id).update(snoozed_until=clock.now() - timedelta(seconds=1))
    assert key in keys(owner)
    teamwork.snooze(key, actor=owner, team="shop", until=clock.now() + timedelta(days=3))
    teamwork.wake(key, actor=owner, team="shop")
    assert key in keys(owner)
    assert [event.action for event in AuditEvent.objects.filter(subject_kind="teamfix").order_by("pk")] == [
        "fix.snoozed", "fix.snoozed", "fix.woken",
    ]  # fmt: skip


def test_until_a_fix_ships(fleet):
    owner = fleet["owner"]
    package = Remedy.objects.filter(repository__name="shop/api", kind="upgrade", package_name="urllib3").get()
    with pytest.raises(Malformed, match="There is a fix already"):
        teamwork.snooze(package.key, actor=owner, until_fix=True)
    Match.objects.filter(package__name="urllib3").update(fixed_version="")
    find_all()
    key = key_of("urllib3")
    assert Remedy.objects.filter(key=key).values_list("kind", flat=True).distinct().get() == "none"
    assert key != package.key
    teamwork.snooze(key, actor=owner, until_fix=True)
    find_all()  # rows are replaced
    assert keys(owner, snoozed=ONLY) == {key}
    Match.objects.filter(package__name="urllib3").update(fixed_version="9.0")
    find_all()
    shipped = key_of("urllib3")
    assert shipped in keys(owner)
    assert keys(owner, snoozed=ONLY) == set()


def test_what_becomes_exploited_is_not_put_off(fleet):
    owner, key = fleet["owner"], key_of("urllib3")
    teamwork.snooze(key, actor=owner, until=clock.now() + timedelta(days=30))
    assert key not in keys(owner)
    Remedy.objects.filter(key=key).update(exploited=1)
    assert key in keys(owner)
    teamwork.snooze(key, actor=owner, until=clock.now() + timedelta(days=30))  # knowing that
    assert key not in keys(owner)


def test_limits(fleet):
    owner, key = fleet["owner"], key_of("urllib3")
    now = clock.now()
    for wrong in ({}, {"until": now - timedelta(days=1)}, {"until": now + timedelta(days=400)}):
        with pytest.raises(Malformed):
            teamwork.snooze(key, actor=owner, **wrong)
    for text in ("", " ", "x" * 4001, "a\0b"):
        with pytest.raises(Malformed):
            teamwork.comment(key, actor=owner, text=text)
    for name in ("0" * 16, "x", "\0" * 16):
        with pytest.raises(NotFound):
            teamwork.comment(name, actor=owner, text="x")


def test_comments_are_seen_by_those_who_see_the_images(fleet):
    key = key_of("urllib3")
    answer = Caller(fleet["viewer"]).post(f"fixes/{key}/comment/", {"text": "Waiting for <b>upstream</b>."})
    assert answer.status_code == 201
    assert Caller(fleet["owner"]).get(f"fixes/{key}/").json()["comments"][0]["author"] == "viewer"
    page = browser(fleet["owner"]).get(f"/fixes/{key}/").content.decode()
    assert "Waiting for &lt;b&gt;upstream" in page
    other = dock.user("other", "owner", of=dock.team("base"))
    assert Caller(other).post(f"fixes/{key}/comment/", {"text": "x"}).status_code == 404
    shared = key_of("perl-base")
    Caller(fleet["viewer"]).post(f"fixes/{shared}/comment/", {"text": "Only for shop.", "team": "shop"})
    if (seen := Caller(other).get(f"fixes/{shared}/")).status_code == 200:
        assert seen.json()["comments"] == []


def test_pages_and_api(fleet):
    owner, key = fleet["owner"], key_of("urllib3")
    pages = browser(owner)
    assert pages.post(f"/fixes/{key}/assign/", {"team": "shop", "person": "viewer"}).status_code == 302
    assert "viewer" in pages.get("/fixes/", {"who": "assigned"}).content.decode()
    wrong = pages.post(f"/fixes/{key}/assign/", {"team": "shop", "person": "who-is-this"})
    assert wrong.status_code == 422
    assert "who-is-this" in wrong.content.decode()
    assert "can see the images of this fix" in wrong.content.decode()
    assert pages.post(f"/fixes/{key}/snooze/", {"team": "shop", "days": "4"}).status_code == 302
    assert "No fixes match" in pages.get("/fixes/", {"who": "assigned"}).content.decode()
    assert "viewer" in pages.get("/fixes/", {"who": "assigned", "snoozed": "only"}).content.decode()
    assert pages.post(f"/fixes/{key}/wake/", {"team": "shop"}).status_code == 302
    api = Caller(owner)
    assert api.post(f"fixes/{key}/snooze/", {}).status_code == 400
    until = (clock.now() + timedelta(days=2)).isoformat()
    assert api.post(f"fixes/{key}/snooze/", {"until": until, "reason": "r"}).json()["is_snoozed"] is True
    work = api.get("fixes/", snoozed="only").json()["results"][0]["work"][0]
    assert (work["person"], work["snoozed_by"], work["reason"]) == ("viewer", "boss", "r")
    assert api.post(f"fixes/{key}/wake/", {}).json()["is_snoozed"] is False
    assert api.get("fixes/", who="everybody").status_code == 400


@pytest.fixture
def live(fleet):
    place = create_environment(dock.team("shop"), actor=system_user(), slug="live", name="Live", prefix="live")
    Environment.objects.filter(pk=place.pk).update(is_production=True)
    fixed = dock.image("shop/static 2", layers=2, under=fleet["new"])
    dock.carry(fixed, 1, dock.package("openssl", "3.5.0-1"))
    old = dock.repository("shop/static").tags.get(name="1.0").image
    dock.push(dock.repository("shop/static"), fixed, "1.0")
    Slot.objects.create(
        repository=dock.repository("shop/static"), environment=place, image=old, tag="1.0", since=clock.now()
    )
    find_all()
    return fleet | {"place": place, "old_static": old, "fixed": fixed}


def test_an_older_image_in_production_is_fixed_by_promoting_the_current_one(live):
    row = Remedy.objects.get(repository__name="shop/static", kind="promote")
    assert (row.image, row.base.name, row.base_tag) == (live["old_static"], "shop/static", "1.0")
    assert (row.old_base, row.new_base) == (live["old_static"], live["fixed"])
    assert row.critical + row.high + row.medium + row.low + row.unknown == len({item[0] for item in row.closes}) > 0
    found = groups_for(live["owner"], Choice(environment=live["place"]))
    assert [(group.kind, group.images) for group in found.groups] == [("promote", 1)]
    assert found.groups[0].environments[0][0].slug == "live"
    page = browser(live["owner"]).get(f"/fixes/{row.key}/").content.decode()
    assert "An environment runs an older image" in page
    assert "promotions/new/?repository=" in page
    kept = Slot.objects.get(repository=row.repository)
    kept.image = live["fixed"]
    kept.since = clock.now()
    kept.save()
    assert row.repository_id in services.changed_since(clock.now())
    find_all()
    assert not Remedy.objects.filter(repository__name="shop/static").exists()


def test_what_the_current_image_has_too_is_no_promotion(live):
    """The finding of the older image belongs to the remedy of the current one: both are counted there."""
    old = live["old_static"]
    Image.objects.filter(pk=live["fixed"].pk).update(scanned_at=None)  # nobody knows what the current one has
    find_all()
    rows = Remedy.objects.filter(repository__name="shop/static")
    assert {row.image for row in rows} == {old}
    assert "promote" not in {row.kind for row in rows}


def test_what_runs_and_is_current_is_no_promotion(live):
    api = dock.repository("shop/api")
    Slot.objects.create(repository=api, environment=live["place"], image=live["api"], tag="1.0", since=clock.now())
    find_all()
    assert {row.image for row in Remedy.objects.filter(repository=api)} == {live["api"]}
    assert not Remedy.objects.filter(repository=api, kind="promote").exists()
