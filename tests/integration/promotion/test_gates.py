"""Windows, holds, stops and soak: each closes the gate, also between approval and execution, and opens it again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone
from freezegun import freeze_time

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services as authority
from lifecycle.clusters.models import NamespaceBinding
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed, NotFound, NotPermitted, PolicyBlocked
from lifecycle.environments.models import Hold, Occupancy, PromotionWindow, Slot
from lifecycle.pages.promotion.page_queries import places_of_environment
from lifecycle.promotion import services
from lifecycle.promotion.environments import change_environment
from lifecycle.promotion.holds import lift_hold, put_hold, words_of_hold
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.opening import create_window, delete_window, opening_of
from lifecycle.promotion.soaking import occupy
from lifecycle.registry.models import Image, Repository, Tag
from lifecycle.runtime import drift
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import cluster, entry, report

pytestmark = pytest.mark.django_db
State = PromotionRequest.State
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
NOW = timezone.now


@pytest.fixture
def ready(dock, request_):
    """A request for staging that can run now."""
    services.approve(request_.pk, actor=dock.approver, reason="")
    request_.refresh_from_db()
    assert request_.state == State.READY
    return request_


@pytest.fixture
def admin(db):
    return User.objects.create(username="admin", is_superuser=True)


def freeze(actor, *, hours=2.0, started=1.0, **more):
    """Set a freeze that began an hour ago."""
    starts = datetime.now(UTC) - timedelta(hours=started)
    values = {"team": "shop", "environment": "staging"} | more
    return create_window(
        actor=actor, name="sale", kind="freeze", starts_at=f"{starts:%Y-%m-%dT%H:%M}",
        duration_s=int(hours * 3600), time_zone="UTC", **values,
    )  # fmt: skip


def test_window_that_closes_between_approval_and_execution_stops_the_run(dock, ready):
    window = freeze(dock.owner)
    with pytest.raises(IllegalTransition, match=r"Waiting, opens at .* UTC\. Freeze: sale\."):
        services.execute(ready.pk, actor=dock.deployer)
    services.judge_open()
    ready.refresh_from_db()
    assert ready.state == State.READY  # a closed window is no regress
    delete_window(window.pk, actor=dock.owner)
    assert services.execute(ready.pk, actor=dock.deployer).state == State.EXECUTING


def test_time_to_run_is_paused_behind_a_closed_window_once(dock, ready):
    left = timedelta(hours=5)
    PromotionRequest.objects.filter(pk=ready.pk).update(execute_by=NOW() + left)
    freeze(dock.owner, hours=11)  # 10 more hours
    services.reevaluate(ready)
    ready.refresh_from_db()
    opens = opening_of(dock.staging).opens_at
    assert abs(ready.execute_by - (opens + left)) < timedelta(seconds=20)
    first = ready.execute_by
    freeze(dock.owner, hours=101)
    services.reevaluate(ready)
    ready.refresh_from_db()
    assert ready.execute_by == first
    PromotionRequest.objects.filter(pk=ready.pk).update(execute_by=NOW() - timedelta(seconds=1))
    services.expire_due()
    ready.refresh_from_db()
    assert ready.state == State.EXPIRED


def test_allowed_hours_name_the_next_opening_in_the_api(dock, ready):
    create_window(
        actor=dock.owner, name="work", kind="allow", starts_at="2026-01-05T08:00", duration_s=8 * 3600,
        time_zone="Europe/Berlin", rule="FREQ=WEEKLY;BYDAY=MO,TU,WE,TH", team="shop",
    )  # fmt: skip
    client = Client()
    client.force_login(dock.deployer, backend=BACKEND)
    with freeze_time("2026-11-28T10:00:00Z"):  # a Saturday
        answer = client.get(f"/api/v1/promotions/{ready.pk}/").json()
        assert answer["waiting"] == ("Waiting, opens at 2026-11-30 07:00 UTC. Outside the allowed hours of the team.")
        assert answer["opens_at"] == "2026-11-30T07:00:00Z"
    with freeze_time("2026-11-30T07:00:00Z"):
        assert opening_of(dock.staging).is_open


def test_windows_apply_to_their_place(dock, ready, admin):
    other = authority.create_environment(dock.team, actor=dock.owner, slug="live", name="Live", prefix="live")
    freeze(dock.owner, environment="live")
    assert (opening_of(dock.staging).is_open, opening_of(other).is_open) == (True, False)
    freeze(admin, team="", environment="")
    assert not opening_of(dock.staging).is_open


def test_rollback_runs_in_a_freeze_that_allows_it(dock):
    freeze(dock.owner)
    assert opening_of(dock.staging, kind="rollback").is_open
    freeze(dock.owner, allows_rollback=False)
    assert not opening_of(dock.staging, kind="rollback").is_open
    assert opening_of(dock.staging, kind="break-glass").is_open


@pytest.mark.parametrize(
    "values",
    [
        {"starts_at": "tomorrow"},
        {"starts_at": "2026-11-26T16:00:00Z"},
        {"time_zone": "Mars/Base"},
        {"kind": "thaw"},
        {"name": " "},
        {"rule": "FREQ=SECONDLY"},
        {"duration_s": 0},
    ],
)
def test_bad_window_is_refused(dock, values):
    good = {"name": "sale", "kind": "freeze", "starts_at": "2026-11-26T16:00", "duration_s": 60, "time_zone": "UTC"}
    with pytest.raises(Malformed):
        create_window(actor=dock.owner, team="shop", **(good | values))
    assert create_window(actor=dock.owner, team="shop", **good).level == "team"


def test_who_sets_and_sees_windows_and_holds(dock, admin):
    for actor, error in ((dock.outsider, NotFound), (dock.deployer, NotPermitted)):
        with pytest.raises(error):
            freeze(actor)
        with pytest.raises(error):
            put_hold(actor=actor, reason="x", team="shop")
    for action in (freeze, lambda actor, **place: put_hold(actor=actor, reason="x", **place)):
        with pytest.raises(NotPermitted, match="Only admins"):
            action(dock.owner, team="", environment="")
        action(admin, team="", environment="")
    freeze(dock.owner)
    put_hold(actor=dock.owner, reason="x", team="shop")
    client = Client()
    for user, count in ((dock.outsider, 1), (dock.deployer, 2)):  # that of the site is seen by everybody
        client.force_login(user, backend=BACKEND)
        assert [len(client.get(f"/api/v1/{what}/").json()["results"]) for what in ("windows", "holds")] == [count] * 2
    with pytest.raises(NotFound):
        delete_window(PromotionWindow.objects.get(team=dock.team).pk, actor=dock.outsider)
    with pytest.raises(NotFound):
        lift_hold(Hold.objects.get(team=dock.team).pk, actor=dock.outsider)


def test_hold_put_between_approval_and_execution_stops_the_run(dock, ready):
    hold = put_hold(actor=dock.owner, reason="checkout test", team="shop", environment="staging")
    with pytest.raises(PolicyBlocked) as refused:
        services.execute(ready.pk, actor=dock.deployer)
    assert refused.value.details["reasons"] == ["On hold: Held by owner, until it is lifted: checkout test"]
    services.judge_open()
    ready.refresh_from_db()
    assert ready.state == State.OPEN
    second = put_hold(actor=dock.owner, reason="audit", team="shop", environment="staging", repository="shop/api")
    lift_hold(hold.pk, actor=dock.owner)
    services.judge_open()
    ready.refresh_from_db()
    assert ready.state == State.OPEN  # several can coexist
    lift_hold(second.pk, actor=dock.owner)
    services.judge_open()
    ready.refresh_from_db()
    assert ready.state == State.READY
    assert services.execute(ready.pk, actor=dock.deployer).state == State.EXECUTING
    actions = AuditEvent.objects.filter(action__startswith="hold.").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["hold.created", "hold.created", "hold.lifted", "hold.lifted"]


def test_hold_of_automatic_runs_lets_people_run(dock, ready):
    put_hold(actor=dock.owner, reason="rolled back", team="shop", environment="staging", scope="auto")
    assert words_of_hold(ready) == "Held by owner: rolled back"
    assert services.execute(ready.pk, actor=dock.deployer).state == State.EXECUTING


def test_hold_ends_at_its_expiry(dock, ready):
    hold = put_hold(
        actor=dock.owner, reason="x", team="shop", environment="staging", expires_at=NOW() + timedelta(hours=1)
    )
    Hold.objects.filter(pk=hold.pk).update(expires_at=NOW() - timedelta(seconds=1))
    services.judge_open()
    assert services.execute(ready.pk, actor=dock.deployer).state == State.EXECUTING
    with pytest.raises(Conflict, match="ended"):
        lift_hold(hold.pk, actor=dock.owner)


@pytest.mark.parametrize("place", [{}, {"team": "shop"}, {"team": "shop", "environment": "staging"}])
def test_stopped_line_stops_everything_below_it(dock, ready, admin, place):
    actor = dock.owner if place else admin
    stop = put_hold(actor=actor, reason="incident 7", is_stop=True, **place)
    assert timedelta(hours=3) < stop.expires_at - NOW() <= timedelta(hours=4)
    with pytest.raises(PolicyBlocked) as refused:
        services.execute(ready.pk, actor=dock.deployer)
    assert "Line stopped: Stopped by" in refused.value.details["reasons"][0]
    lift_hold(stop.pk, actor=admin if not place else dock.owner)
    assert services.execute(ready.pk, actor=dock.deployer).state == State.EXECUTING


@pytest.mark.parametrize(
    "values",
    [
        {"reason": " "},
        {"scope": "some"},
        {"is_stop": True, "scope": "auto"},
        {"repository": "shop/api", "environment": ""},
        {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
)
def test_bad_hold_is_refused(dock, values):
    good = {"reason": "x", "team": "shop", "environment": "staging"}
    with pytest.raises(Malformed):
        put_hold(actor=dock.owner, **(good | values))
    assert put_hold(actor=dock.owner, **good).scope == "all"


def soak(request):
    latest = services.reevaluate(request)
    return next((item for item in latest.requirements if item["name"] == "soak"), None)


def test_soak_counts_the_present_stay_in_the_previous_environment(dock, ready):
    assert soak(ready) is None
    change_environment(dock.staging.pk, actor=dock.owner, soak_s=86_400)
    item = soak(ready)
    assert (item["status"], item["title"]) == ("unsatisfied", "Soak in dev")
    slot = Slot.objects.get(environment=dock.dev)
    occupy(slot, dock.image)
    since = NOW() - timedelta(hours=23)
    Occupancy.objects.update(started_at=since)
    item = soak(ready)
    assert (item["status"], item["counts"]["done_at"]) == ("pending", int((since + timedelta(days=1)).timestamp()))
    ready.refresh_from_db()
    assert ready.state == State.OPEN
    Occupancy.objects.update(started_at=NOW() - timedelta(hours=24, seconds=1))
    assert soak(ready)["status"] == "satisfied"
    ready.refresh_from_db()
    assert ready.state == State.READY


def test_interrupted_stays_do_not_add_up(dock, ready):
    change_environment(dock.staging.pk, actor=dock.owner, soak_s=86_400)
    slot = Slot.objects.get(environment=dock.dev)
    other = Image.objects.create(digest="sha256:" + "c" * 64, kind=Image.Kind.MANIFEST, media_type="x", manifest=b"{}")
    occupy(slot, dock.image)
    Occupancy.objects.update(started_at=NOW() - timedelta(hours=40))
    occupy(slot, other)
    Occupancy.objects.filter(image=dock.image).update(ended_at=NOW() - timedelta(hours=20))
    assert soak(ready)["status"] == "unsatisfied"
    occupy(slot, dock.image)
    Occupancy.objects.filter(image=dock.image, ended_at=None).update(started_at=NOW() - timedelta(hours=10))
    assert soak(ready)["status"] == "pending"
    Occupancy.objects.filter(image=dock.image, ended_at__isnull=False).update(started_at=NOW() - timedelta(hours=45))
    assert soak(ready)["status"] == "satisfied"  # one earlier stay was long enough


def test_succeeded_promotion_starts_a_stay(dock, ready):
    services.execute(ready.pk, actor=dock.deployer)
    services.verify(ready)
    services.succeed(ready)
    stay = Occupancy.objects.get(slot__environment=dock.staging)
    assert (stay.image, stay.ended_at) == (dock.image, None)


def test_api_sets_and_removes_windows_and_holds(dock):
    client = Client()
    client.force_login(dock.owner, backend=BACKEND)
    made = client.post(
        "/api/v1/windows/",
        {"name": "sale", "kind": "freeze", "starts_at": "2026-11-26T16:00", "duration_s": 60, "time_zone": "UTC",
         "team": "shop", "environment": "staging"},
        content_type="application/json",
    )  # fmt: skip
    assert (made.status_code, made.json()["starts_at"]) == (201, "2026-11-26T16:00:00")
    assert client.delete(f"/api/v1/windows/{made.json()['id']}/").status_code == 204
    held = client.post(
        "/api/v1/holds/", {"reason": "x", "team": "shop", "environment": "staging"}, content_type="application/json"
    )
    assert (held.status_code, held.json()["owner"], held.json()["expires_at"]) == (201, "owner", None)
    assert client.delete(f"/api/v1/holds/{held.json()['id']}/").status_code == 204
    assert client.get("/api/v1/holds/").json()["results"] == []


def page(user, where):
    client = Client()
    client.force_login(user, backend=BACKEND)
    answer = client.get(where)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_stop_is_shown_on_the_board_the_environment_and_the_request(dock, ready):
    places = ("/promotions/environments/", f"/promotions/environments/{dock.staging.pk}/", f"/promotions/{ready.pk}/")
    assert not [where for where in places if "Line stopped" in page(dock.deployer, where)]
    put_hold(actor=dock.owner, reason="incident 7", team="shop", is_stop=True)
    assert [where for where in places if "incident 7" not in page(dock.deployer, where)] == []


def test_closed_window_is_shown_with_its_next_opening(dock, ready):
    freeze(dock.owner)
    opens = f"{opening_of(dock.staging).opens_at:%Y-%m-%d %H:%M} UTC"
    for where in (
        "/promotions/environments/",
        f"/promotions/environments/{dock.staging.pk}/",
        f"/promotions/{ready.pk}/",
    ):
        assert f"Waiting, opens at {opens}" in page(dock.deployer, where)


def test_board_shows_drift_of_the_current_tag(dock, ready):
    services.execute(ready.pk, actor=dock.deployer)
    services.verify(ready)
    services.succeed(ready)
    other = Image.objects.create(digest="sha256:" + "d" * 64, kind=Image.Kind.MANIFEST, media_type="x", manifest=b"{}")
    target = Repository.objects.create(
        registry=dock.repository.registry, team=dock.team, name="staging/shop/api", family="shop/api",
        source=dock.repository, environment=dock.staging,
    )  # fmt: skip
    tag = Tag.objects.create(repository=target, name="current", image=dock.image, updated_at=NOW())
    assert "Drift" not in page(dock.deployer, "/promotions/environments/")
    tag.image = other
    tag.save()
    assert "Drift: the tag current points to" in page(dock.deployer, "/promotions/environments/")


def test_environment_page_saves_settings_and_refuses_a_stale_revision(dock):
    client = Client()
    client.force_login(dock.owner, backend=BACKEND)
    where = f"/promotions/environments/{dock.staging.pk}/"
    form = {
        "revision": "1", "name": "Stage", "position": "2", "required_approvals": "1", "is_production": "on",
        "rules": "leads: 1 of approver, second", "approve_hours": "24", "execute_hours": "2", "soak_hours": "1.5",
        "queue_policy": "latest-wins", "excludes_requester": "on", "excludes_policy_author": "on",
    }  # fmt: skip
    assert client.post(where, form).status_code == 302
    dock.staging.refresh_from_db()
    assert (dock.staging.name, dock.staging.is_production, dock.staging.soak_s) == ("Stage", True, 5400)
    assert (dock.staging.excludes_requester, dock.staging.excludes_committer) == (True, False)
    assert "leads: 1 of approver, second" in page(dock.owner, where)
    late = client.post(where, form | {"name": "Late"})
    assert late.status_code == 422
    assert "Another user changed this environment" in late.content.decode()
    odd = client.post(where, form | {"revision": "2", "rules": "two of us"})
    assert (odd.status_code, "two of us" in odd.content.decode()) == (422, True)
    dock.staging.refresh_from_db()
    assert dock.staging.name == "Stage"


def test_environment_page_shows_where_its_images_run(dock):
    where = f"/promotions/environments/{dock.staging.pk}/"
    agent = person("agent", dock.team, "security")
    assert "No namespaces that you can see are bound" in page(dock.owner, where)
    north, south = cluster(dock.team, "north", mode="enforce"), cluster(rows.team("other"), "south")
    for each in (north, south):
        NamespaceBinding.objects.create(cluster=each, pattern="shop*", environment=dock.staging)
    NamespaceBinding.objects.create(cluster=north, pattern="shop-eu", environment=dock.staging, mode="warn")
    report(north, agent, 1, entry(rows.sha("x"), key="a"), entry(rows.sha("x"), key="b"), entry(rows.sha("y"), key="c"))
    drift.sweep(NOW())

    (place,) = places_of_environment(dock.staging, dock.owner)

    assert (place.cluster, [row.pattern for row in place.bindings]) == (north, ["shop*", "shop-eu"])
    assert (place.images, place.containers, place.alerts) == (2, 3, 2)
    shown = page(dock.owner, where)
    assert "/clusters/north/" in shown
    assert "Warned about" in shown
    assert "south" not in shown


def test_gates_page_stops_the_line_and_lifts_it(dock):
    client = Client()
    client.force_login(dock.owner, backend=BACKEND)
    form = {"place": "shop/staging", "hold_reason": "incident 7", "hold_hours": "", "act": "stop"}
    assert client.post("/promotions/gates/holds/", form).status_code == 302
    stop = Hold.objects.get()
    assert (stop.is_stop, stop.environment) == (True, dock.staging)
    assert "incident 7" in page(dock.owner, "/promotions/gates/")
    assert client.post(f"/promotions/gates/holds/{stop.pk}/lift/").status_code == 302
    assert "incident 7" not in page(dock.owner, "/promotions/gates/")
