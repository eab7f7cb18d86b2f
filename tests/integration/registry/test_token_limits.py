"""The token endpoint at its limits: sizes, bodies of every kind, what an answer says, and who bounds whom."""

from __future__ import annotations

import base64
import io
import json
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from accounts.models import ApiToken, Robot, User
from accounts.queries import system_user
from lifecycle.authority import limiter, services
from lifecycle.authority.models import CredentialFailure
from lifecycle.environments.models import Environment
from lifecycle.oci.scopes import parse_scopes
from lifecycle.tokens import endpoint, forms, rights
from tests.factories import dock

pytestmark = pytest.mark.django_db
FORM = {"service": settings.REGISTRY_SERVICE}
LIMIT = forms.BODY_MAX_BYTES


class Stream(io.BytesIO):
    """A body as a server gives it: at most `step` bytes at a time. It notes how much was asked for."""

    def __init__(self, content: bytes, step: int = 10**9) -> None:
        super().__init__(content)
        self.step, self.given = step, 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0, "the whole body must not be read at once"
        piece = super().read(min(size, self.step))
        self.given += len(piece)
        return piece


def send(query: str = "", *, body: bytes | None = None, **environ: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Return the status line, the JSON and the headers of an answer: to a GET, or to a POST of `body`."""
    given: dict[str, Any] = {"REQUEST_METHOD": "GET" if body is None else "POST", "QUERY_STRING": query,
                             "REMOTE_ADDR": "192.0.2.7", "wsgi.input": io.BytesIO(body or b"")}  # fmt: skip
    if body is not None:
        given["CONTENT_LENGTH"] = str(len(body))
    seen: list[Any] = []
    parts = endpoint.application(given | environ, lambda *answer: seen.extend(answer))  # type: ignore[arg-type]  # a start_response that returns no writer
    text = b"".join(parts)
    headers = dict(seen[1])
    assert headers["Content-Length"] == str(len(text))
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("application/json", "no-store")
    assert headers["X-Content-Type-Options"] == "nosniff"
    return seen[0], json.loads(text), headers


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def anna(person: Any) -> Any:
    return person("anna", "creator", of=dock.team("shop"))


# --- What an answer says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "status", "code", "extra"),
    [
        ({"REQUEST_METHOD": "PUT"}, "405 Method Not Allowed", "unsupported", {"Allow": "GET, POST"}),
        ({"QUERY_STRING": "service=x"}, "400 Bad Request", "invalid_request", {}),
        ({"HTTP_AUTHORIZATION": "Bearer x"}, "401 Unauthorized", "unauthorized",
         {"WWW-Authenticate": 'Basic realm="gravingdock", charset="UTF-8"'}),
        ({"HTTP_AUTHORIZATION": basic("anna", "wrong")}, "401 Unauthorized", "unauthorized",
         {"WWW-Authenticate": 'Basic realm="gravingdock", charset="UTF-8"'}),
    ],
)  # fmt: skip
def test_error_has_the_headers_of_its_kind_and_no_other(environ, status, code, extra):
    line, answer, headers = send(**environ)
    assert (line, answer["error"], answer["errors"][0]["code"]) == (status, code, code.upper())
    assert answer["error_description"] == answer["errors"][0]["message"]
    assert {name: headers[name] for name in ("Allow", "WWW-Authenticate", "Retry-After") if name in headers} == extra


@pytest.mark.parametrize("error", [OperationalError("away"), InterfaceError("closed")])
def test_database_that_is_away_is_a_503_that_asks_to_wait(error, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(endpoint.api_tokens, "find_token", fail)
    line, answer, headers = send(HTTP_AUTHORIZATION=basic("anna", "x"))
    assert (line, answer["error"], headers["Retry-After"]) == ("503 Service Unavailable", "unavailable", "2")
    assert "WWW-Authenticate" not in headers


def test_budget_that_is_used_up_is_a_429_without_a_challenge():
    CredentialFailure.objects.bulk_create(CredentialFailure(account="anna") for _ in range(limiter.PER_ACCOUNT))
    line, answer, headers = send(HTTP_AUTHORIZATION=basic("anna", "x"))
    assert (line, answer["error"], headers["Retry-After"]) == ("429 Too Many Requests", "toomanyrequests", "300")
    assert "WWW-Authenticate" not in headers


def test_whole_answer(anna):
    before = int(timezone.now().timestamp())
    line, answer, headers = send("scope=repository:shop/api:push,pull", HTTP_AUTHORIZATION=basic("anna", anna.token))
    assert line == "200 OK"
    assert set(answer) == {"token", "access_token", "scope", "expires_in", "issued_at"}
    assert (answer["scope"], answer["expires_in"]) == ("repository:shop/api:pull,push", 300)
    claims = jwt.decode(answer["token"], options={"verify_signature": False})
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("anna", 300)
    issued = timezone.datetime.strptime(answer["issued_at"] + "+0000", "%Y-%m-%dT%H:%M:%SZ%z").timestamp()
    assert before <= issued == claims["iat"] <= before + 20
    assert not {"Allow", "WWW-Authenticate", "Retry-After"} & set(headers)


def test_request_without_scopes_asks_no_rights(anna, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("nothing was requested")

    monkeypatch.setattr(endpoint, "decide", refuse)
    assert send(HTTP_AUTHORIZATION=basic("anna", anna.token))[1]["scope"] == ""
    assert send("scope=repository:shop/api:pull")[1]["scope"] == ""


# --- Credentials --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "is_offline"),
    [("offline_token=true", True), ("access_type=offline", True), ("offline_token=false", False),
     ("access_type=online", False), ("", False)],
)  # fmt: skip
def test_refresh_token_is_for_who_asks_for_it_and_signed_in(query, is_offline, anna):
    answer = send(query, HTTP_AUTHORIZATION=basic("anna", anna.token))[1]
    assert ("refresh_token" in answer) is is_offline
    anonymous = send(query)
    assert (anonymous[0], "refresh_token" in anonymous[1]) == ("200 OK", False)
    form = urlencode({"grant_type": "password", "username": "anna", "password": anna.token}) + "&" + query
    answer = send(body=form.encode())[1]
    assert ("refresh_token" in answer) is ("access_type=offline" in query)


def test_sign_in_names_its_client(anna):
    send("offline_token=true&client_id=docker", HTTP_AUTHORIZATION=basic("anna", anna.token))
    assert "docker" in ApiToken.objects.get(kind="ref").name
    form = {"grant_type": "password", "username": "anna", "password": anna.token, "access_type": "offline",
            "client_id": "podman"}  # fmt: skip
    send(body=urlencode(form).encode())
    assert "podman" in ApiToken.objects.filter(kind="ref").latest("pk").name


@pytest.mark.parametrize("grant_type", ["password", "refresh_token"])
def test_form_for_another_service_is_refused(grant_type, anna):
    text = send("offline_token=true", HTTP_AUTHORIZATION=basic("anna", anna.token))[1]["refresh_token"]
    form = {"grant_type": grant_type, "username": "anna", "password": anna.token, "refresh_token": text}
    assert send(body=urlencode(form | FORM).encode())[0] == "200 OK"
    assert send(body=urlencode(form | {"service": "x"}).encode())[0] == "400 Bad Request"


def test_use_of_a_token_is_noted_with_its_address(anna):
    ApiToken.objects.update(last_used_at=None)
    send(HTTP_AUTHORIZATION=basic("anna", anna.token), REMOTE_ADDR="192.0.2.9")
    row = ApiToken.objects.get()
    assert (row.last_used_at is not None, str(row.last_used_ip)) == (True, "192.0.2.9")


def test_only_a_refresh_token_is_refreshed_even_for_this_service(anna):
    ApiToken.objects.update(service=settings.REGISTRY_SERVICE)
    form = {"grant_type": "refresh_token", "refresh_token": anna.token}
    assert send(body=urlencode(form).encode())[0] == "401 Unauthorized"


def test_owner_of_a_stored_token_learns_why_it_fails_and_costs_no_budget(anna):
    ApiToken.objects.update(expires_at=timezone.now())
    _, answer, _ = send(HTTP_AUTHORIZATION=basic("anna", anna.token))
    assert answer["error_description"].startswith("The token has expired. Create a new one. Use an access token")
    assert not CredentialFailure.objects.exists()
    _, answer, _ = send(HTTP_AUTHORIZATION=basic("anna", "wrong"))
    assert answer["error_description"].startswith("Wrong user name or token. Use an access token")
    failure = CredentialFailure.objects.get()
    assert (failure.account, str(failure.address)) == ("anna", "192.0.2.7")


@pytest.mark.parametrize(("length", "is_asked"), [(0, False), (1, True), (1024, True), (1025, False)])
@pytest.mark.parametrize("way", ["basic", "refresh"])
def test_only_texts_of_a_token_s_size_are_looked_up(length, is_asked, way, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(endpoint.api_tokens, "find_token", lambda text: asked.append("find"))
    monkeypatch.setattr(endpoint.api_tokens, "why_refused", lambda text: asked.append("why") or "")
    text = "x" * length
    if way == "basic":
        send(HTTP_AUTHORIZATION=basic("anna", text))
        assert asked == (["find", "why"] if is_asked else ["why"] if length == 0 else [])
    else:
        send(body=urlencode({"grant_type": "refresh_token", "refresh_token": text}).encode())
        assert asked == (["find", "why"] if length <= 1024 else [])


@pytest.mark.parametrize(("length", "is_read"), [(8192, True), (8196, False)])
def test_header_has_a_limit(length, is_read):
    # Four characters hold three bytes.
    header = "Basic " + base64.b64encode(b"anna:" + b"x" * (length // 4 * 3 - 5)).decode()
    assert len(header) - 6 == length
    words = send(HTTP_AUTHORIZATION=header)[1]["error_description"]
    assert ("malformed" in words) is not is_read


@pytest.mark.parametrize("encoded", ["YW5uYTp4!", "YW5u*YTp4", "!" * 8, "YW5uYTp"])
def test_header_that_is_no_base64_is_refused_as_such(encoded):
    assert "malformed" in send(HTTP_AUTHORIZATION=f"Basic {encoded}")[1]["error_description"]


# --- Bodies -------------------------------------------------------------------------------------------------------

PADDING = b"grant_type=x&pad="


def padded(size: int) -> bytes:
    return PADDING + b"x" * (size - len(PADDING))


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"CONTENT_LENGTH": "\u0663"}, "400 Bad Request"),  # a digit, but not of ours
        ({"CONTENT_LENGTH": "-1"}, "400 Bad Request"),
        ({"CONTENT_LENGTH": "1.0"}, "400 Bad Request"),
        ({"CONTENT_LENGTH": str(LIMIT + 1)}, "413 Request Entity Too Large"),
    ],
)
def test_length_of_a_body_is_a_number_within_the_limit(environ, status):
    line, answer, _ = send(body=b"", **environ)
    assert line == status
    assert answer["error_description"] in {"Content-Length is not a number.", "The body is too long."}


ENDED, CHUNKED = {"wsgi.input_terminated": True}, {"HTTP_TRANSFER_ENCODING": "Chunked"}


@pytest.mark.parametrize("ended", [None, ENDED, CHUNKED], ids=["length", "terminated", "chunked"])
@pytest.mark.parametrize("step", [10**9, 1000])
@pytest.mark.parametrize(
    ("size", "is_read"), [(LIMIT - 1, True), (LIMIT, True), (LIMIT + 1, False), (3 * LIMIT, False)]
)
def test_body_up_to_the_limit_is_read_in_every_form(ended, step, size, is_read):
    stream = Stream(padded(size), step if ended else 10**9)
    length = {"CONTENT_LENGTH": str(size) if ended is None else ""}
    line, answer, _ = send(body=b"", **(length | (ended or {}) | {"wsgi.input": stream}))
    if is_read:
        assert (line, answer["error"]) == ("400 Bad Request", "unsupported_grant_type")
        assert stream.given == size
    else:
        assert line == "413 Request Entity Too Large"
        assert stream.given <= LIMIT + 1


@pytest.mark.parametrize("environ", [{}, {"HTTP_TRANSFER_ENCODING": "gzip"}])
def test_body_of_unknown_length_is_not_read(environ):
    stream = Stream(padded(100))
    given: dict[str, Any] = {"CONTENT_LENGTH": None, "wsgi.input": stream} | environ
    line, answer, _ = send(body=b"", **given)
    assert (line, answer["error"], stream.given) == ("400 Bad Request", "unsupported_grant_type", 0)


@pytest.mark.parametrize(("size", "status"), [(64 * 1024, "200 OK"), (64 * 1024 + 1, "414 Request-URI Too Long")])
def test_query_has_a_limit(size, status):
    assert send("scope=" + "x" * (size - 6))[0] == status


@pytest.mark.parametrize(("count", "status"), [(2000, "200 OK"), (2001, "400 Bad Request")])
def test_parameters_are_counted(count, status):
    assert send("&".join(["a=1"] * count))[0] == status


def test_parameter_can_be_repeated_only_with_one_value(anna):
    form = urlencode({"grant_type": "password", "username": "anna", "password": anna.token})
    assert send(body=f"{form}&username=anna".encode())[0] == "200 OK"
    line, answer, _ = send(body=f"{form}&username=eve".encode())
    assert (line, answer["error_description"]) == (
        "400 Bad Request", "Parameter username has two different values. Send it once.")  # fmt: skip


# --- Rights -------------------------------------------------------------------------------------------------------


def allowed(user: User, *scopes: str) -> dict[tuple[str, str], list[str]]:
    return {key: sorted(actions) for key, actions in rights.allowed_actions(user, parse_scopes(scopes)).items()}


def test_catalog_is_for_admins_who_cost_no_query(anna, django_assert_num_queries):
    with django_assert_num_queries(2):  # grants and teams: who audits every team reads it too
        assert allowed(anna.user, "registry:catalog:*") == {}
    anna.user.is_superuser = True
    with django_assert_num_queries(0):
        assert allowed(anna.user, "registry:catalog:*") == {("registry", "catalog"): ["*"]}
    assert allowed(anna.user, "registry:catalog:*", "repository:base/x:pull") == {
        ("registry", "catalog"): ["*"], ("repository", "base/x"): [],
    }  # fmt: skip


def test_robot_of_the_system_has_its_own_grants_and_no_other_bound():
    shop = services.create_team(actor=system_user(), slug="shop", name="Shop")
    kim = User.objects.create(username="kim")
    services.add_member(shop.pk, actor=system_user(), username="kim", role="creator")
    robot = services.create_robot(shop.pk, actor=system_user(), name="ci")
    services.grant_robot(robot.pk, actor=system_user(), role="maintainer")
    wanted = ("repository", "shop/api")
    assert allowed(robot.user, "repository:shop/api:*") == {wanted: ["delete", "pull", "push"]}
    Robot.objects.update(responsible=kim)
    robot = Robot.objects.select_related("user").get()
    assert allowed(robot.user, "repository:shop/api:*") == {wanted: ["pull", "push"]}


def test_place_of_an_environment_is_its_prefix_and_its_team(anna, person):
    base = person("ben", "creator", of=dock.team("base"))
    both = [Environment.objects.create(team=dock.team(name), slug="prod", name="P", position=1, prefix="prod")
            for name in ("shop", "base")]  # fmt: skip
    assert len({row.pk for row in both}) == 2
    for who, own, other in ((anna, "shop", "base"), (base, "base", "shop")):
        found = allowed(who.user, f"repository:prod/{own}/x/y:*", f"repository:prod/{other}/x:*", "repository:prod/z:*")
        assert found == {
            ("repository", f"prod/{own}/x/y"): ["pull"], ("repository", f"prod/{other}/x"): [],
            ("repository", "prod/z"): [],
        }  # fmt: skip


def test_stored_repository_below_a_prefix_is_only_pulled(anna):
    """A repository that was pushed before its first part became the prefix of an environment."""
    shop = dock.team("shop")
    dock.repository("prod/api", shop)
    assert allowed(anna.user, "repository:prod/api:*") == {("repository", "prod/api"): ["pull", "push"]}
    Environment.objects.create(team=shop, slug="prod", name="P", position=1, prefix="prod")
    assert allowed(anna.user, "repository:prod/api:*") == {("repository", "prod/api"): ["pull"]}
