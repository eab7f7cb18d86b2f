"""Every route has a reviewed row: who gets in, who is told nothing, who is refused. Every call has somebody who may.

A route without a row fails, and so does a row without a route. The rows are in `matrix_of_routes`, and those of changes
in `matrix_of_calls`, `matrix_of_allowed_calls` and `matrix_of_allowed_forms`. The rows of the database that they are
about are in `estate_of_matrix`.
"""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Final

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.models import Role, User
from lifecycle.admission.models import AdmissionDebt
from lifecycle.audit import services as audit
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import (
    RoleGrant,
)
from lifecycle.core import clock
from lifecycle.declared.state import etag_of
from lifecycle.environments.models import Environment
from lifecycle.jobs.models import Job
from lifecycle.pentests.models import PentestFinding
from lifecycle.promotion import release_sets
from lifecycle.promotion import services as promotions
from lifecycle.promotion.models import Comment, PromotionRequest, ReleaseSet, ReviewDebt
from lifecycle.quarantine.models import Quarantine
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from tests import sharing
from tests.factories import dock as rows
from tests.factories.retention import waiting_plan
from tests.factories.shop import make_dock, make_request
from tests.integration.estate_of_matrix import SECRET, address, make_estate, make_wave
from tests.integration.matrix_of_allowed_calls import MAY
from tests.integration.matrix_of_calls import (
    API_ACTS,
    BACKEND,
    FORMS,
    PASSWORD,
    POSTS,
    REBUILD_ACTS,
)
from tests.integration.matrix_of_routes import HIDDEN, IN, MATRIX, OUT, POST_ONLY, REFUSED

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
    # Only the owner of the tables writes the log: tests/integration/sealed_log reads it.
    proofs = {"GET log/{}", "GET audit/{}/proof/", "GET api/v1/audit-events/{}/proof/"}
    links = {call_shape(f"{method} account/link/<str:text>/") for method in ("GET", "POST")}
    visits = {"GET sso/{}/start/", "GET sso/{}/callback/"}  # tests/integration/sso
    elsewhere = {"GET readyz", *proofs, *links, *visits}
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
    "proof", "passwords", "match", "of-group-group", "of-group-role", "asked_until",
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
