"""Every route has a reviewed row: who gets in, who is told nothing, who is refused. Every call has somebody who may.

A route without a row fails, and so does a row without a route. The rows are in `matrix_of_routes`, and those of changes
in `matrix_of_calls` and `matrix_of_allowed_calls`.
"""

from __future__ import annotations

import copy
import hashlib
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Final

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts import tokens
from accounts.models import ApiToken, Robot, Role, Team, User
from lifecycle.admission.models import AdmissionDebt, AdmissionDecision
from lifecycle.advisories.models import Feed, PrivateAdvisory
from lifecycle.alerts.models import Alert
from lifecycle.audit import services as audit
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import (
    AccessRequest,
    BrowserSession,
    Passkey,
    RecoveryCode,
    RoleGrant,
    TotpSecret,
)
from lifecycle.clusters.models import Cluster, ClusterSecret
from lifecycle.clusters.queries import hash_of
from lifecycle.core import clock
from lifecycle.declared.state import etag_of
from lifecycle.environments.models import Environment, Hold, PromotionWindow
from lifecycle.inventory.models import Reporter, RuntimeReport
from lifecycle.jobs.models import Job
from lifecycle.keyless.models import TrustRule
from lifecycle.notices.models import Channel, InboxItem, Message, Mute
from lifecycle.pentests.models import PentestFinding, PentestRun
from lifecycle.policies.models import ExternalCheck, Waiver
from lifecycle.policies.types import Scope
from lifecycle.promotion import release_sets
from lifecycle.promotion import services as promotions
from lifecycle.promotion.models import Comment, PromotionRequest, ReleaseSet, ReviewDebt
from lifecycle.promotion.release_sets import Wanted
from lifecycle.quarantine.models import Quarantine
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Metadata, Registry, Repository
from lifecycle.remedies.models import Remedy
from lifecycle.retention.models import RetentionPlan
from lifecycle.sbom.models import PackageList, Sbom
from lifecycle.sealing.models import Anchor
from lifecycle.trust.models import SigningKey, TrustedSource
from lifecycle.vex.models import VexDocument, VexFeed, VexStatement
from tests import sharing
from tests.factories import dock as rows
from tests.factories.access import access_ids, make_access
from tests.factories.pentests import pentest_finding
from tests.factories.policies import rule
from tests.factories.policies import save as save_rules
from tests.factories.policies import waiver as ask_waiver
from tests.factories.retention import deleted_plan, waiting_plan
from tests.factories.shop import make_dock, make_request
from tests.factories.vexing import bring_document, vex_feed
from tests.factories.vexing import decision as ask_decision
from tests.integration.matrix_of_allowed_calls import MAY
from tests.integration.matrix_of_calls import (
    API_ACTS,
    BACKEND,
    FORMS,
    OSV_RECORD,
    PASSWORD,
    POSTS,
    REBUILD_ACTS,
)
from tests.integration.matrix_of_routes import HIDDEN, IN, MATRIX, OUT, POST_ONLY, REFUSED

SECRET: Final = "gdc_ale_of-these-tests"
ROLES: Final = ("owner", "approver", "deployer", "requester")


def routes(resolver: URLResolver | None = None, prefix: str = "") -> list[str]:
    """Return the pattern of every route, as Django has it."""
    found: list[str] = []
    for entry in (resolver or get_resolver()).url_patterns:
        pattern = prefix + str(entry.pattern)
        found += routes(entry, pattern) if isinstance(entry, URLResolver) else [pattern]
        assert isinstance(entry, (URLResolver, URLPattern))
    return found


def shape(pattern: str) -> str:
    """Return a pattern with each parameter as {}: the table's, Django's own and the router's expressions alike."""
    plain = re.sub(
        r"\(\?P<\w+>(?:[^()]|\([^()]*\))*\)", "{}", pattern.replace("^", "").replace("$", "").replace("\\Z", "")
    )
    return re.sub(r"<[^>]+>|\{[^}]*\}", "{}", plain)


def test_every_route_has_a_row_and_every_row_a_route():
    assert {shape(route) for route in routes()} == {shape(pattern.partition("?")[0]) for pattern in MATRIX}


@pytest.fixture(autouse=True)
def _mail_is_on(settings):
    settings.MAIL_IS_ON = True


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker):
    """The rows of all tests of this file."""
    with sharing.database(django_db_blocker):
        with sharing.quick_settings():
            dock = make_dock()
            made = SimpleNamespace(dock=dock, request_=make_request(dock), wave=make_wave(dock))
            make_estate(dock)
        yield made


@pytest.fixture(autouse=True)
def own(world):
    """The objects of `world`, copied for one test, whose changes to the rows are taken back."""
    with sharing.taken_back():
        yield copy.deepcopy(world)


@pytest.fixture
def dock(own):
    return own.dock


@pytest.fixture
def request_(own):
    return own.request_


@pytest.fixture
def people(dock):
    viewer = User.objects.create(username="viewer")
    RoleGrant.objects.create(user=viewer, team=dock.team, role=Role.objects.get(slug="viewer"))
    clients = {"nobody": Client(), "outsider": Client(), "viewer": Client()}
    clients["outsider"].force_login(dock.outsider, backend=BACKEND)
    clients["viewer"].force_login(viewer, backend=BACKEND)
    return clients


def make_wave(dock):
    """Create a planned wave over the dock's repository, an image in it, a watch, a recipe, an image on an old base."""
    by = {"repository": dock.repository}
    old, web = rows.image("old base"), rows.image("web")
    rows.push(dock.repository, old, "1.0")
    rows.push(dock.repository, dock.image, "1.0")
    above = rows.repository("shop/web", dock.team)
    rows.push(above, web, "latest")
    rows.derive(old, web)
    Recipe.objects.create(repository=above, revision=1, containerfile="FROM scratch", author=dock.owner)
    BuilderPermit.objects.create(repository=above, turned_on_by=dock.owner)
    made = RebuildWave.objects.create(**by, new_base=dock.image, planned_by=dock.owner)
    recipe = Recipe.objects.create(**by, revision=1, containerfile="FROM scratch", author=dock.owner)
    RebuildJob.objects.create(**by, wave=made, level=1, old_image=dock.image, recipe=recipe, tag="latest")
    UpstreamWatch.objects.create(**by, tag="latest", created_by=dock.owner)
    return made


def make_estate(dock):
    """Create a robot with a token, somebody's token, a composed role, and a package with an advisory."""
    robot = make_access(dock)
    TrustRule.objects.create(
        robot=robot, name="ci", issuer="https://gitlab.com", audience="x", claims={"project_path": "acme/shop"},
        made_by=dock.owner,
    )  # fmt: skip
    tokens.create_token(dock.owner, kind="pat", name="laptop")
    Passkey.objects.create(user=dock.owner, name="laptop", credential_id=b"id", public_key=b"key")
    TotpSecret.objects.create(user=dock.owner)
    RecoveryCode.objects.create(user=dock.owner, secret_sha256=hashlib.sha256(b"RECOVERYCODE").digest())
    now = clock.now()
    times = {"created_at": now, "last_seen_at": now, "expire_date": now + timedelta(days=1)}
    BrowserSession.objects.create(session_key="k", user=dock.owner, **times)
    Team.objects.create(slug="empty", name="Empty")
    Metadata.objects.create(repository=dock.repository, key="owner", value="kim")
    Role.objects.create(slug="crew", name="Crew", verbs=["image.view"])
    AccessRequest.objects.create(
        team=dock.team, requester=dock.requester, role=Role.objects.get(slug="deployer"), days=7, reason="on call"
    )
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    save_rules(Scope(dock.team), rule("r"))
    ask_waiver(dock.team, "r", by=dock.owner, repository=dock.repository)
    ask_decision(dock.repository, by=dock.owner)
    bring_document(dock.team, by=dock.owner)
    vex_feed(dock.team, by=dock.owner)
    vex_feed(dock.team, by=dock.owner, name="trusted", trusted_by=dock.approver)
    bad, on_bad = rows.image("bad"), rows.image("on bad")
    rows.derive(bad, on_bad)
    rows.push(dock.repository, bad, "bad")
    rows.push(dock.repository, on_bad, "on-bad")
    pentest_finding(dock.repository, dock.image, by=dock.owner)
    deleted_plan(dock.team, bad, dock.repository, by=dock.owner)
    Quarantine.objects.create(image=bad, team=dock.team, reason="bad", created_by=dock.approver)
    Remedy.objects.create(
        repository=dock.repository,
        image=dock.image,
        key="0" * 16,
        subject="s",
        kind="none",
        package_name="openssl",
        high=1,
    )
    Alert.objects.create(
        kind="finding.new", fingerprint="0" * 64, team=dock.team, vulnerability="CVE-2026-1", first_at=clock.now(),
        last_at=clock.now(), repository_ids=[dock.repository.pk], image_counts=[1], images=1,
    )  # fmt: skip
    for name in ("first", "second"):
        Anchor.objects.create(name=name, kind="mail", target="audit@example.com")
    north = Cluster.objects.create(slug="north", team=dock.team, created_by=dock.owner)
    AdmissionDecision.objects.create(cluster=north, key="key-1", snapshot_number=1, at=clock.now())
    AdmissionDebt.objects.create(
        cluster=north, digests=["sha256:a"], fingerprint="0" * 64, decision_key="key-1", reason="INC-7",
        opened_at=clock.now(), last_at=clock.now(), due_at=clock.now(),
    )  # fmt: skip
    ClusterSecret.objects.create(cluster=north, kind="alerts", sha256=hash_of(SECRET), created_by=dock.owner)
    host = Reporter.objects.create(
        cluster=north, name="host", boot="b", sequence=1, first_at=clock.now(), seen_at=clock.now()
    )
    RuntimeReport.objects.create(
        reporter=host, cluster=north, report_id="r-1", kind="full", boot="b", sequence=1, observed_at=clock.now(),
        received_at=clock.now(), applied_at=clock.now(),
    )  # fmt: skip
    PrivateAdvisory.objects.create(
        osv_id="ACME-2026-1", document=OSV_RECORD["document"] | {"id": "ACME-2026-1"}, state="requested",
        author=dock.owner,
    )  # fmt: skip
    sbom = Sbom.objects.create(image=dock.image, format="CycloneDX 1.5 JSON", tool="x", digest=rows.sha("bom"))
    PackageList.objects.create(
        sbom=sbom, image=dock.image, kind="sent", package_count=1, dropped_count=0, team_ids=[dock.team.pk],
        sent_by=dock.owner, kept_at=clock.now(),
    )  # fmt: skip
    Job.objects.create(kind="scan", subject_id=1, actor=dock.owner, state="failed", finished_at=clock.now())
    SigningKey.objects.create(name="release", public_key="PEM", fingerprint=rows.sha("key"), created_by=dock.owner)
    source = TrustedSource.objects.create(
        name="hub", places=["quay.io/*"], needs_signature=False, created_by=dock.owner
    )
    source.teams.set([dock.team])
    Environment.objects.create(team=dock.team, slug="spare", name="Spare", prefix="spare", position=9)
    allowed = {"name": "always", "kind": "allow", "starts_at": "2026-01-01T00:00:00", "time_zone": "UTC"}
    PromotionWindow.objects.create(
        team=dock.team, duration_s=86_400, rule="FREQ=DAILY", created_by=dock.owner, **allowed
    )  # fmt: skip
    Registry.objects.create(name="other", endpoint="https://localhost:1", is_added=True)
    Feed.objects.create(name="other", location="https://localhost:1/osv")
    channel = Channel.objects.create(
        team=dock.team, name="ops", kind="webhook", topics=["promotion.failed"], created_by=dock.owner
    )
    ExternalCheck.objects.create(team=dock.team, name="scanner", host="scanner.example.com", created_by=dock.owner)
    Message.objects.create(channel=channel, key="k", state="sent", due_at=clock.now())
    Mute.objects.create(person=dock.approver, scope="all", until=clock.now() + timedelta(days=3))
    Hold.objects.create(team=dock.team, environment=dock.dev, scope="auto", reason="test", owner=dock.owner)
    wanted = []
    for name in ("one", "two"):
        member, where = (
            rows.image(name, scanned_at=clock.now(), package_count=1),
            rows.repository(f"shop/{name}", dock.team),
        )
        rows.push(where, member, "1.0")
        wanted.append(Wanted(where, tag="1.0"))
    release_sets.request_set(wanted, dock.dev, actor=dock.requester, reason="release")


def address(pattern, dock, request_):
    values = {
        "grant": RoleGrant.objects.filter(user=dock.approver).values_list("pk", flat=True).first(),
        **access_ids(),
        "robot": Robot.objects.values_list("pk", flat=True).first(),
        "trust_rule": TrustRule.objects.values_list("pk", flat=True).first(),
        "robot_token": ApiToken.objects.filter(kind="rob").values_list("pk", flat=True).first(),
        "passkey": Passkey.objects.filter(user=dock.owner).values_list("pk", flat=True).first(),
        "factored_person": dock.owner.pk,
        "session": BrowserSession.objects.filter(user=dock.owner).values_list("public_id", flat=True).first(),
        "token": ApiToken.objects.filter(kind="pat").values_list("pk", flat=True).first(),
        "role": "crew",
        "person": dock.approver.pk,
        "check": ExternalCheck.objects.values_list("pk", flat=True).first(),
        "channel": Channel.objects.values_list("pk", flat=True).first(),
        "feed": Feed.objects.filter(name="other").values_list("pk", flat=True).first(),
        "registry": Registry.objects.filter(is_added=True).values_list("pk", flat=True).first(),
        "message": Message.objects.filter(state="sent").values_list("pk", flat=True).first(),
        "mute": Mute.objects.filter(person=dock.approver).values_list("pk", flat=True).first(),
        "notice": InboxItem.objects.filter(person=dock.approver).values_list("pk", flat=True).first(),
        "digest": dock.image.digest,
        "repository": dock.repository.pk,
        "repository_name": dock.repository.name,
        "free_repository": Repository.objects.filter(name="shop/free").values_list("pk", flat=True).first(),
        "free_name": "shop/free",
        "access_request": AccessRequest.objects.values_list("pk", flat=True).first(),
        "environment": dock.dev.pk,
        "unused_environment": Environment.objects.filter(slug="spare").values_list("pk", flat=True).first(),
        "window": PromotionWindow.objects.values_list("pk", flat=True).first(),
        "hold": Hold.objects.values_list("pk", flat=True).first(),
        "promotion": request_.pk,
        "set": ReleaseSet.objects.values_list("pk", flat=True).first(),
        "thread": 1,
        "wave": RebuildWave.objects.values_list("pk", flat=True).first(),
        "wave_job": RebuildJob.objects.values_list("pk", flat=True).first(),
        "scope": "team:shop",
        "fix": "0" * 16,
        "alert": Alert.objects.values_list("pk", flat=True).first(),
        "cluster": "north",
        "decision": "key-1",
        "debt": AdmissionDebt.objects.values_list("pk", flat=True).first(),
        "secret": SECRET,
        "log_file": "checkpoint",
        "anchor": Anchor.objects.values_list("pk", flat=True).first(),
        "report": "r-1",
        "pentest": PentestFinding.objects.values_list("pk", flat=True).first(),
        "pentest_run": PentestRun.objects.values_list("pk", flat=True).first(),
        "retention_plan": RetentionPlan.objects.values_list("pk", flat=True).first(),
        "quarantine": Quarantine.objects.values_list("pk", flat=True).first(),
        "vex_statement": VexStatement.objects.filter(document=None).values_list("pk", flat=True).first(),
        "private_advisory": PrivateAdvisory.objects.values_list("pk", flat=True).first(),
        "vex_feed": VexFeed.objects.values_list("pk", flat=True).first(),
        "trusted_vex_feed": VexFeed.objects.filter(name="trusted").values_list("pk", flat=True).first(),
        "vex_document": VexDocument.objects.values_list("pk", flat=True).first(),
        "waiver": Waiver.objects.values_list("pk", flat=True).first(),
        "watch": UpstreamWatch.objects.values_list("pk", flat=True).first(),
        "signing_key": "release",
        "sbom": PackageList.objects.values_list("pk", flat=True).first(),
        "trusted_source": TrustedSource.objects.values_list("pk", flat=True).first(),
        "event": AuditEvent.objects.order_by("pk").values_list("pk", flat=True).first(),
        "job": Job.objects.filter(kind="scan", subject_id=1).values_list("pk", flat=True).first(),
        "team": dock.team.slug,
        "advisory": "CVE-2026-1",
        "export": "findings.csv",
        "tag": "1.0",
        "empty_team": "empty",
        "package_type": "deb",
        "package_name": "openssl",
    }
    return "/" + pattern.replace("<str:name>", "managed").format(**values)


@pytest.mark.parametrize("pattern", [pattern for pattern, row in MATRIX.items() if row[0] != "-"])
def test_each_kind_of_visitor_gets_what_the_row_says(pattern, people, dock, request_):
    found = []
    for client in people.values():
        answer = client.get(address(pattern, dock, request_))
        if answer.status_code == 302 and "/accounts/sign-in/" in answer["Location"]:
            found.append(OUT)
        else:
            words = {401: OUT, 404: HIDDEN, 403: REFUSED, 400: REFUSED, 405: POST_ONLY}
            found.append(words.get(answer.status_code, IN if answer.status_code < 400 else str(answer.status_code)))
    assert tuple(found) == MATRIX[pattern]


@pytest.mark.parametrize("act", POSTS)
@pytest.mark.parametrize(("who", "statuses"), [("nobody", {401, 403}), ("outsider", {404}), ("viewer", {403})])
def test_who_holds_no_verb_changes_nothing(act, who, statuses, people, request_):
    answer = people[who].post(
        f"/api/v1/promotions/{request_.pk}/{act}/", {"reason": "x"}, content_type="application/json"
    )
    assert answer.status_code in statuses
    request_.refresh_from_db()
    assert request_.state == "open"


@pytest.mark.parametrize(("method", "pattern", "body"), REBUILD_ACTS)
@pytest.mark.parametrize(("who", "statuses"), [("nobody", {401, 403}), ("outsider", {404}), ("viewer", {403})])
def test_who_may_not_rebuild_changes_nothing(  # noqa: PLR0917 -- fixtures
    method, pattern, body, who, statuses, people, dock, request_
):  # fmt: skip
    where = "/api/v1" + address(pattern, dock, request_)
    answer = getattr(people[who], method)(where, body, content_type="application/json")
    assert answer.status_code in statuses
    assert [row.state for row in RebuildWave.objects.all()] == ["planned"]
    assert (Recipe.objects.count(), UpstreamWatch.objects.count()) == (2, 1)
    dock.repository.refresh_from_db()
    assert dock.repository.protected_tags == []


@pytest.mark.parametrize(("who", "statuses"), [("nobody", {401, 403}), ("outsider", {404})])
def test_who_cannot_see_a_base_plans_nothing(who, statuses, people):
    answer = people[who].post("/api/v1/rebuild-waves/", {"base": "shop/api:1.0"}, content_type="application/json")
    assert answer.status_code in statuses
    assert RebuildWave.objects.count() == 1


def changes() -> int:
    """Return how many changes the trail holds: every change is an event, and so is every refusal, which counts not."""
    return AuditEvent.objects.exclude(action="access.refused").count()


@pytest.mark.parametrize("row", FORMS, ids=lambda row: row[0])
def test_who_manages_nothing_is_refused_by_every_form(row, people, dock, request_):
    pattern, form, for_outsider, for_viewer = row
    before = changes()
    where = address(pattern, dock, request_)
    assert people["nobody"].post(where, form)["Location"].startswith("/accounts/sign-in/")
    assert people["outsider"].post(where, form).status_code == for_outsider
    assert people["viewer"].post(where, form).status_code == for_viewer
    assert changes() == before


@pytest.mark.parametrize("act", API_ACTS, ids=lambda act: f"{act[0]} {act[1]}")
def test_who_manages_nothing_is_refused_by_every_act_of_the_api(act, people, dock, request_):
    method, pattern, body, for_outsider, for_viewer = act
    before = changes()
    where = address(f"api/v1/{pattern}", dock, request_)
    found = [
        getattr(client, method)(where, body, content_type="application/json").status_code for client in people.values()
    ]
    assert found == [401, for_outsider, for_viewer]
    assert changes() == before


def call_shape(call: str) -> str:
    """Return "METHOD address" with each parameter as {} and without a query."""
    method, _, pattern = call.partition(" ")
    return f"{method} {shape(pattern.partition('?')[0])}"


def may_get() -> list[str]:
    """Return a GET for each route that the viewer of MATRIX may read, as the test of its rows proves."""
    return [f"GET {pattern}" for pattern, row in MATRIX.items() if row[2] == IN]


@pytest.fixture
def principals(dock, people):
    """A client of everybody who may do something."""
    admin = User.objects.create(username="admin", is_superuser=True)
    owner_admin = User.objects.create(username="owner-admin", is_superuser=True)
    RoleGrant.objects.create(user=owner_admin, team=dock.team, role=Role.objects.get(slug="owner"))
    dock.owner.set_password(PASSWORD)
    dock.owner.save()
    for name, user in [
        ("admin", admin),
        ("owner-admin", owner_admin),
        *((name, getattr(dock, name)) for name in ROLES),
    ]:
        people[name] = Client()
        people[name].force_login(user, backend=BACKEND)
    people["sender"] = Client(headers={"Authorization": f"Bearer {SECRET}"})
    people["registry"] = Client(headers={"Authorization": f"Bearer {settings.REGISTRY_HOOK_SECRET}"})
    return people


def prepare_promotion(call, dock, request_):
    """Bring the request into the state that the call needs."""
    if "{ready_promotion}" in call:
        promotions.approve(request_.pk, actor=dock.approver, reason="read")
    if "break-glass" in call or "{broken_promotion}" in call:
        role = Role.objects.create(slug="breaker", name="Breaker", verbs=["image.view", "promotion.breakglass"])
        RoleGrant.objects.create(user=dock.owner, team=dock.team, role=role)
    if "{verifying_promotion}" in call:
        Environment.objects.update(verification="manual")
        soon = clock.now() + timedelta(hours=1)
        PromotionRequest.objects.filter(pk=request_.pk).update(state="verifying", verify_by=soon)
    if "{discussed_promotion}" in call:
        Comment.objects.create(pk=1, request=request_, author=dock.second, text="Why now?", is_blocking=True)
    if "{broken_promotion}" in call:
        PromotionRequest.objects.filter(pk=request_.pk).update(kind="break-glass")
        ReviewDebt.objects.create(request=request_, incident="INC-7", due_at=clock.now())
    if "/rollback/" in call:
        before = rows.image("before", layers=1, scanned_at=clock.now(), package_count=1)
        rows.push(dock.repository, before, "0.9")
        PromotionRequest.objects.create(
            image=before, repository=dock.repository, environment=dock.dev, tag="0.9", state="succeeded", reason="x",
            requested_by=dock.requester, approve_by=clock.now(), finished_at=clock.now(),
        )  # fmt: skip
    if "{voted_set}" in call:
        pk = ReleaseSet.objects.values_list("pk", flat=True).get()
        release_sets.approve(pk, actor=dock.approver, reason="read")
        release_sets.object_to(pk, actor=dock.second, reason="not now")
    if "{voted_promotion}" in call:
        promotions.approve(request_.pk, actor=dock.approver, reason="read")
        promotions.object_to(request_.pk, actor=dock.second, reason="not now")


def prepared(call, dock, request_):
    """Return the address of a call, and bring what it is about into the state that the call needs."""
    prepare_promotion(call, dock, request_)
    if "{failed_wave}" in call:
        ended = {"state": "failed", "finished_at": clock.now()}
        RebuildWave.objects.update(confirmed_by=dock.owner, **ended)
        RebuildJob.objects.update(**ended)
    if "{asked_pentest}" in call:
        PentestFinding.objects.update(asked_by=dock.approver, asked_until=datetime(2099, 1, 1, tzinfo=UTC))
    if "{waiting_retention_plan}" in call:
        waiting_plan(dock.repository, rows.image("loose"), by=dock.owner)
    if "{asked_quarantine}" in call:
        Quarantine.objects.update(state="release_requested", release_requested_by=dock.approver)
    if "{free_" in call:
        rows.repository("shop/free", dock.team)
    if "{waiting_job}" in call:
        Job.objects.update(state="waiting", finished_at=None)
    if "{mailed_person}" in call or "test-mail" in call:
        User.objects.filter(pk=dock.approver.pk).update(email="approver@example.com")
    if "{movable_team}" in call:
        promotions.withdraw(request_.pk, actor=dock.requester)
        RebuildJob.objects.all().delete()
        RebuildWave.objects.all().delete()
    if "{admin_person}" in call:
        User.objects.filter(pk=dock.approver.pk).update(is_superuser=True)
    if "{inactive_person}" in call:
        User.objects.filter(pk=dock.approver.pk).update(is_active=False)
    if (
        call in {"POST api/v1/promotions/", "POST api/v1/release-sets/", "POST release-sets/new/"}
        or call.startswith("POST promotions/new/")
        or call.endswith("{digest}/delete/")
    ):  # one at a time
        promotions.withdraw(request_.pk, actor=dock.requester)
    if call.startswith("DELETE api/v1/clusters/") or call == "POST clusters/{cluster}/delete/":
        AdmissionDebt.objects.all().delete()  # they wait for their review
    plain = re.sub(
        r"\{(?:ready|voted|broken|discussed|verifying|failed|asked|inactive|waiting|mailed|admin|movable)_(\w+)\}",
        r"{\1}",
        call.partition(" ")[2],
    )
    return address(plain, dock, request_)


def version(where):
    """Return the headers of a change to what two people may edit."""
    if "/external-checks/" in where or "/clusters/" in where or where.endswith("/retention/"):
        return {"If-Match": "*"}
    if where.endswith("/api/v1/security/"):
        return {"If-Match": '"security.0"'}
    if where.endswith("/due-dates/"):
        return {"If-Match": '"due-dates.0"'}
    if where.endswith("/access/file/apply/"):
        return {"If-Match": etag_of({"teams": [{"name": "shop"}]})}
    return {"If-Match": '"team:shop.1"'} if "/policies/team:" in where else {}


@pytest.mark.parametrize("call", [call for call in MAY if " api/v1/" in call and not call.startswith("GET ")])
def test_answer_to_a_change_needs_no_right_that_ends_meanwhile(call, principals, dock, request_, monkeypatch):
    """The last event of a change ends every right of its actor: the change stands, and so does the answer."""
    who, body = MAY[call]
    where = prepared(call, dock, request_)
    record = audit.record

    def record_and_end_rights(action, *, actor, **more):
        event = record(action, actor=actor, **more)
        if actor is not None and actor.kind == User.Kind.PERSON:
            RoleGrant.objects.filter(user=actor).delete()
            User.objects.filter(pk=actor.pk).update(is_superuser=False)
        return event

    monkeypatch.setattr(audit, "record", record_and_end_rights)
    method = call.partition(" ")[0].lower()
    answer = getattr(principals[who], method)(where, body, content_type="application/json", headers=version(where))
    assert answer.status_code < 300, answer.content


def test_every_method_of_every_route_has_somebody_who_may(principals, dock, request_):
    allowed = set()
    for pattern in MATRIX:
        client = principals["nobody" if pattern.startswith("accounts/sign-") else "admin"]
        answer = client.trace(address(pattern, dock, request_))
        assert answer.status_code == 405, f"{pattern} takes any method"
        methods = {method.strip() for method in answer["Allow"].split(",")} - {"HEAD", "OPTIONS"}
        if pattern.startswith("accounts/"):
            methods.discard("PUT")  # Django's form views take it for a POST
        allowed |= {call_shape(f"{method} {pattern}") for method in methods}
    # Only the owner of the tables writes the log: tests/integration/sealing reads it.
    proofs = {"GET log/{}", "GET audit/{}/proof/", "GET api/v1/audit-events/{}/proof/"}
    links = {call_shape(f"{method} account/link/<str:text>/") for method in ("GET", "POST")}
    elsewhere = {"GET readyz", *proofs, *links}
    assert allowed - elsewhere == {call_shape(call) for call in [*MAY, *may_get()]}


@pytest.mark.parametrize("call", MAY)
def test_somebody_with_the_right_role_may(call, principals, dock, request_):
    who, body = MAY[call]
    where, client = prepared(call, dock, request_), principals[who]
    method = call.partition(" ")[0].lower()
    if method == "get":
        answer = client.get(where)
    elif who == "sender":
        answer = client.post(where, body, content_type="application/cloudevents+json")
    elif "/api/v1/" in where or who == "registry":
        answer = getattr(client, method)(where, body, content_type="application/json", headers=version(where))
    else:
        ids = {
            "repository": dock.repository.pk,
            "environment": dock.staging.pk,
            "promotion": request_.pk,
            "failed_job": Job.objects.filter(state="failed").values_list("pk", flat=True).first(),
        }
        fields = {
            key: value if isinstance(value, SimpleUploadedFile) else str(value).format(**ids)
            for key, value in body.items()
        }
        answer = client.post(where, fields)
    assert answer.status_code < 400, answer.content[:500]
    assert "/accounts/sign-in/" not in answer.get("Location", "") or call == "POST accounts/sign-out/"


# Fields of forms that people do not type into: lists, check boxes, numbers of rows, buttons.
CHOSEN: Final = {
    "act", "base", "count", "days", "digest", "environment", "grant-role", "ids", "key", "kind", "login", "next",
    "code",
    "outcome", "passed", "password", "oldpassword", "approve_hours", "excludes_requester", "execute_hours", "hours",
    "names", "place", "position", "queue_policy", "required_approvals", "revision", "role", "soak_hours", "starts_at",
    "theme", "to", "turn", "until", "verbs", "digest_at", "scope", "voter", "window_kind", "zone", "form-TOTAL_FORMS",
    "form-INITIAL_FORMS", "form-0-environment", "mode", "tags", "unbound", "team", "visibility", "client_secret",
    "proof", "passwords", "match", "of-group-group", "of-group-role",
}  # fmt: skip
TYPED: Final = [
    (call, field)
    for call, (_, body) in MAY.items()
    if call.startswith("POST ") and "api/v1/" not in call and not call.startswith(("POST accounts/", "POST hooks/"))
    for field, value in body.items()
    if isinstance(value, str) and field not in CHOSEN and "{" not in value and "/watches/" not in call  # a list of tags
]


@pytest.mark.parametrize(("call", "field"), TYPED)
def test_refused_form_keeps_what_was_typed(call, field, principals, dock, request_):
    """Every field of every form with a text that is too long: it is stored, or shown again with the error."""
    who, body = MAY[call]
    where = prepared(call, dock, request_)
    ids = {"repository": dock.repository.pk, "environment": dock.staging.pk, "promotion": request_.pk}
    typed = "Typed-by-hand! " * 700
    form = {key: str(value).format_map(ids) if "{" in str(value) else value for key, value in body.items()}
    answer = principals[who].post(where, form | {field: typed})
    if answer.status_code == 302:
        return  # such a text is fine here
    assert answer.status_code == 422, (call, field, answer.status_code)
    page = answer.content.decode()
    assert "Typed-by-hand! Typed-by-hand!" in page, (call, field)
    assert "error-summary" in page
    assert page.count("invalid-feedback") >= 1 or "bulk-bar" in page
