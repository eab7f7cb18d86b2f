"""Quarantines: what they cover, what they stop, and the two people who lift them."""

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError, connection, transaction

from accounts.models import ApiToken, Role
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.lineage.models import Derivation
from lifecycle.policy.judging import NEVER_BYPASSED
from lifecycle.promotion import handlers
from lifecycle.promotion import services as promotions
from lifecycle.promotion.breakglass import break_glass
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.rollback import request_rollback
from lifecycle.quarantine import services
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.queries import covered_ids, covers_of, quarantines_visible_to
from lifecycle.quarantine.types import Quarantined, SecondPersonNeeded
from lifecycle.rebuild import planning
from lifecycle.rebuild import services as rebuilds
from lifecycle.registry.models import Image, IndexEntry
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.people import robot as new_robot

pytestmark = pytest.mark.django_db
State = PromotionRequest.State


@pytest.fixture
def guard(dock):
    return person("guard", dock.team, "security")


@pytest.fixture
def other_guard(dock):
    return person("other-guard", dock.team, "security")


def block(image, guard, **more):
    return services.quarantine(image.digest, actor=guard, reason="contains a backdoor", **more)


def covered(*images):
    found = covers_of([image.pk for image in images])
    return [image.pk in found for image in images]


def test_quarantine_covers_what_is_built_on_the_image_and_what_is_built_later(dock, guard):
    base, app, label = rows.image("b"), rows.image("a"), rows.image("label only")
    rows.derive(base, app)
    rows.derive(base, label, evidence=("annotation",), confidence="low")
    rows.push(dock.repository, base, "base")
    index = rows.index("app index", app)
    row = block(base, guard)
    assert covered(base, app, index, label, dock.image) == [True, True, True, False, False]
    assert [cover.is_direct for cover in covers_of([base.pk])[base.pk]] == [True]
    assert covers_of([index.pk])[index.pk][0].words == (
        f"The image is built on an image that is quarantined ({row}): contains a backdoor."
    )
    later = rows.image("later")
    rows.derive(app, later, evidence=("provenance",), confidence="medium")
    assert covered(later) == [True]
    Derivation.objects.filter(derived=later).delete()
    assert covered(later) == [False]


def test_quarantine_without_descendants_covers_only_the_digest_and_its_index(dock, guard):
    base, app = rows.image("b"), rows.image("a")
    rows.derive(base, app)
    rows.push(dock.repository, base, "base")
    index = rows.index("base index", base)
    block(base, guard, descendants=False)
    assert covered(base, index, app) == [True, True, False]


def test_quarantine_of_an_index_covers_its_platforms_and_what_is_built_on_them(dock, guard):
    one, other, app = rows.image("one"), rows.image("other", architecture="arm64"), rows.image("app")
    rows.derive(other, app)
    index = rows.index("index", one, other)
    rows.push(dock.repository, index, "all")
    block(index, guard)
    assert covered(index, one, other, app) == [True, True, True, True]


def test_covered_images_are_found_through_indexes_in_indexes(dock, guard):
    inner_child, app = rows.image("inner child"), rows.image("app on it")
    inner, around = rows.index("inner"), rows.index("around the app")
    IndexEntry.objects.create(index=inner, child=inner_child, position=0, platform="linux/amd64")
    outer, outermost = rows.index("outer"), rows.index("outermost")
    IndexEntry.objects.create(index=outer, child=inner, position=0)
    IndexEntry.objects.create(index=around, child=app, position=0, platform="linux/amd64")
    IndexEntry.objects.create(index=outermost, child=around, position=0)
    rows.derive(inner_child, app)
    rows.push(dock.repository, outer, "outer")
    row = block(outer, guard)
    wanted = {image.pk for image in (outer, inner, inner_child, app, around, outermost)}
    assert covered(outer, inner, inner_child, app, around, outermost) == [True] * 6
    assert set(covered_ids(row)) == wanted  # admission reads this list


def test_quarantine_needs_the_verb_a_reason_and_a_visible_image(dock, guard):
    with pytest.raises(NotPermitted, match=r"image\.quarantine"):
        block(dock.image, dock.approver)
    with pytest.raises(NotFound):
        block(dock.image, dock.outsider)
    with pytest.raises(NotFound):
        services.quarantine("sha256:" + "0" * 64, actor=guard, reason="x")
    with pytest.raises(Malformed):
        services.quarantine(dock.image.digest, actor=guard, reason=" ")
    row = block(dock.image, guard, incident="INC-7")
    with pytest.raises(Conflict, match=str(row)):
        block(dock.image, dock.owner)
    event = AuditEvent.objects.get(action="image.quarantined")
    assert (event.team, event.digest, event.details["incident"]) == (dock.team, dock.image.digest, "INC-7")


def test_robot_can_quarantine_and_never_lifts(dock, guard):
    machine = new_robot(dock.team, "security", maker=guard).user
    row = block(dock.image, machine)
    assert row.created_by == machine
    with pytest.raises(NotPermitted):
        services.request_release(row.pk, actor=machine, reason="ok")
    with pytest.raises(SecondPersonNeeded):  # the person behind the robot is no second one
        services.release(row.pk, actor=guard)


def test_release_takes_a_second_person(dock, guard, other_guard):
    row = block(dock.image, guard)
    with pytest.raises(SecondPersonNeeded):
        services.release(row.pk, actor=guard)
    with pytest.raises(IllegalTransition, match="Ask for the release first"):
        services.release(row.pk, actor=other_guard)
    services.request_release(row.pk, actor=other_guard, reason="false alarm")
    with pytest.raises(SecondPersonNeeded):
        services.release(row.pk, actor=other_guard)
    assert covered(dock.image) == [True]
    released = services.release(row.pk, actor=guard)
    assert (released.state, released.released_by) == ("released", guard)
    assert covered(dock.image) == [False]
    with pytest.raises(IllegalTransition):
        services.request_release(row.pk, actor=guard, reason="again")
    assert block(dock.image, guard).pk != row.pk  # it can be quarantined again


def test_refused_release_keeps_the_quarantine_active(dock, guard, other_guard):
    row = block(dock.image, guard)
    with pytest.raises(IllegalTransition):
        services.refuse_release(row.pk, actor=guard, reason="no")
    services.request_release(row.pk, actor=guard, reason="false alarm")
    kept = services.refuse_release(row.pk, actor=other_guard, reason="not proven")
    assert (kept.state, kept.release_requested_by) == ("active", None)
    assert covered(dock.image) == [True]


def test_vote_of_a_seen_password_or_token_is_no_second_person(dock, guard, other_guard):
    row = block(dock.image, guard)
    services.request_release(row.pk, actor=guard, reason="x")
    other_guard.secret_seen_by = guard
    other_guard.save()
    with pytest.raises(SecondPersonNeeded, match="has seen the password"):
        services.release(row.pk, actor=other_guard)
    assert not ApiToken.objects.exists()


def test_exemption_is_for_one_image_and_by_a_second_person(dock, guard, other_guard):
    base, app, above = rows.image("b"), rows.image("a"), rows.image("above")
    rows.derive(base, app)
    rows.derive(app, above)
    index = rows.index("app index", app)
    for image, tag in ((base, "base"), (app, "app"), (index, "index")):
        rows.push(dock.repository, image, tag)
    row = block(base, guard)
    with pytest.raises(SecondPersonNeeded):
        services.exempt(row.pk, app.digest, actor=guard, reason="does not use it")
    with pytest.raises(Malformed, match="quarantined image itself"):
        services.exempt(row.pk, base.digest, actor=other_guard, reason="x")
    with pytest.raises(Malformed, match="does not cover"):
        services.exempt(row.pk, dock.image.digest, actor=other_guard, reason="x")
    made = services.exempt(row.pk, app.digest, actor=other_guard, reason="does not use it")
    assert services.exempt(row.pk, app.digest, actor=other_guard, reason="twice") == made
    assert covered(base, app, index, above) == [True, False, False, True]
    assert AuditEvent.objects.get(action="quarantine.exempted").digest == app.digest


def test_owner_of_an_image_exempts_it_from_the_quarantine_of_a_base_that_is_hidden(dock, other_guard):
    base = rows.image("hidden base")
    rows.push(rows.repository("base/python"), base, "3")
    rows.derive(base, dock.image)
    row = block(base, rows.user("base-guard", "security", of=rows.team("base")))
    assert not quarantines_visible_to(other_guard).exists()
    with pytest.raises(NotFound):
        services.request_release(row.pk, actor=other_guard, reason="x")
    services.exempt(row.pk, dock.image.digest, actor=other_guard, reason="checked")
    assert covered(dock.image) == [False]


def test_quarantined_image_cannot_be_requested_and_an_open_request_regresses(dock, guard, other_guard, request_):
    promotions.approve(request_.pk, actor=dock.approver)
    row = block(dock.image, guard)
    with pytest.raises(Quarantined, match="contains a backdoor"):
        promotions.request_promotion(dock.repository, dock.image.digest, dock.dev, actor=dock.requester, reason="x")
    assert promotions.judge_open() == 1  # at once, although it was judged a moment ago
    request_.refresh_from_db()
    assert request_.state == State.OPEN
    assert "contains a backdoor" in AuditEvent.objects.get(action="promotion.regressed").reason
    services.request_release(row.pk, actor=guard, reason="false alarm")
    services.release(row.pk, actor=other_guard)
    assert promotions.judge_open() == 1
    request_.refresh_from_db()
    assert request_.state == State.READY


def test_run_is_refused_before_the_request_was_judged_again(dock, guard, request_):
    promotions.approve(request_.pk, actor=dock.approver)
    block(dock.image, guard)
    with pytest.raises(promotions.PolicyBlocked) as refused:
        promotions.execute(request_.pk, actor=dock.deployer)
    assert any("contains a backdoor" in reason for reason in refused.value.details["reasons"])
    request_.refresh_from_db()
    assert request_.state == State.READY


def test_break_glass_does_not_pass_a_quarantine(dock, guard):
    dock.owner.set_password("dock-side-pass")
    dock.owner.save()
    role = Role.objects.create(slug="breaker", name="Breaker", verbs=["image.view", "promotion.breakglass"])
    RoleGrant.objects.create(user=dock.owner, team=dock.team, role=role)
    block(dock.image, guard)
    with pytest.raises(Quarantined, match="contains a backdoor"):
        break_glass(
            dock.repository, dock.image.digest, dock.staging, actor=dock.owner, reason="x", incident="INC-7",
            password="dock-side-pass",
        )  # fmt: skip
    assert "quarantine" in NEVER_BYPASSED


def test_rollback_to_a_quarantined_image_is_refused(dock, guard):
    PromotionRequest.objects.create(
        image=dock.image, repository=dock.repository, environment=dock.dev, tag="1.0", state=State.SUCCEEDED,
        reason="x", requested_by=dock.requester, approve_by=clock.now(), finished_at=clock.now(),
    )  # fmt: skip
    block(dock.image, guard)
    with pytest.raises(Quarantined, match="contains a backdoor"):
        request_rollback(dock.repository, dock.dev, actor=dock.deployer, reason="back")


@pytest.mark.parametrize("moment", ["during the copy", "after it"])
def test_running_promotion_ends_when_its_image_is_quarantined(dock, guard, request_, monkeypatch, moment):
    promotions.approve(request_.pk, actor=dock.approver)
    promotions.execute(request_.pk, actor=dock.deployer)

    def copy(client, *, alive, **more):
        block(dock.image, guard)
        if moment == "during the copy":
            alive()
            pytest.fail("copied on")
        return _Copied()

    monkeypatch.setattr(handlers, "copy_by_digest", copy)
    running.run(Job.objects.get(kind="promote").pk)
    request_.refresh_from_db()
    assert (request_.state, "contains a backdoor" in request_.failure) == (State.FAILED, True)
    assert promotions.Slot.objects.get(environment=dock.staging, repository=dock.repository).image is None


class _Copied:
    manifests = blobs = mounted = uploaded = referrers = 0
    deleted = ()


@pytest.mark.django_db(transaction=True)
def test_quarantine_and_run_wait_for_each_other(dock, guard, request_, in_other_connection):
    promotions.approve(request_.pk, actor=dock.approver)
    with transaction.atomic():
        block(dock.image, guard)
        with pytest.raises(OperationalError, match="lock timeout"):
            in_other_connection(lambda: promotions.execute(request_.pk, actor=dock.deployer))
        transaction.set_rollback(True)
    with transaction.atomic():
        promotions.execute(request_.pk, actor=dock.deployer)
        thread = threading.Thread(target=_in_thread, args=(lambda: block(dock.image, guard),))
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()  # it waits for the run to commit, so that it can stop the copy
    thread.join(timeout=10)
    assert Quarantine.objects.count() == 1


def _in_thread(function):
    try:
        function()
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_second_release_waits_for_the_first_and_is_refused(dock, guard, other_guard, in_other_connection):
    row = block(dock.image, guard)
    services.request_release(row.pk, actor=guard, reason="x")
    with transaction.atomic():
        services.release(row.pk, actor=other_guard)
        with pytest.raises(OperationalError, match="lock timeout"):
            in_other_connection(lambda: services.release(row.pk, actor=dock.owner))
    with pytest.raises(IllegalTransition):
        services.release(row.pk, actor=dock.owner)
    assert AuditEvent.objects.filter(action="quarantine.released").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_quarantines_of_one_digest_make_one(dock, guard, other_guard):
    start, outcomes = threading.Barrier(2), []

    def go(user):
        def body():
            start.wait(10)
            try:
                outcomes.append(block(dock.image, user))
            except Conflict as error:
                outcomes.append(error)

        return body

    threads = [threading.Thread(target=_in_thread, args=(go(user),)) for user in (guard, other_guard)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(type(item).__name__ for item in outcomes) == ["Conflict", "Quarantine"]
    assert Quarantine.objects.count() == 1


def test_quarantined_base_is_not_planned_built_or_confirmed():
    team = rows.team("shop")
    owner = rows.user("owner", "owner", of=team)
    old, new, app = rows.image("old"), rows.image("new"), rows.image("app", layers=5)
    base, api = rows.repository("shop/base", team), rows.repository("shop/api", team)
    rows.push(base, old, "12")
    rows.push(api, app, "latest")
    rows.derive(old, app)
    rebuilds.put_recipe(api.pk, actor=owner, containerfile="FROM shop/base:12\n")
    rows.push(base, new, "12")
    wave = planning.plan_wave("shop/base:12", actor=owner)
    services.quarantine(new.digest, actor=owner, reason="bad compiler")
    with pytest.raises(Quarantined, match="bad compiler"):
        rebuilds.confirm_wave(wave.pk, actor=owner)
    with pytest.raises(Quarantined, match="bad compiler"):
        planning.plan_wave("shop/base:12", actor=owner)
    with pytest.raises(Quarantined, match="bad compiler"):
        rebuilds.put_recipe(api.pk, actor=owner, containerfile="FROM shop/base:12\nRUN true\n")
    assert rebuilds.put_recipe(api.pk, actor=owner, containerfile="FROM shop/api:latest\n").revision == 2


@pytest.mark.parametrize("quarantined", [False, True])
def test_cover_of_any_number_of_images_is_one_query(dock, guard, quarantined, django_assert_num_queries):
    images = [rows.image(f"i{number}") for number in range(5)]
    if quarantined:
        block(dock.image, guard)
    with django_assert_num_queries(1):
        covers_of([image.pk for image in images])
    assert IndexEntry.objects.count() == 0
    assert Image.objects.count() == 6
