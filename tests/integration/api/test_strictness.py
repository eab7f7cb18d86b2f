"""Each operation accepts its documented parameters, and any other request gets an answer below 500."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import Resolver404, resolve
from drf_spectacular.generators import SchemaGenerator

from accounts.models import Membership
from lifecycle.api.parameters import parameters_of
from tests import sharing
from tests.clients import Caller
from tests.factories import dock as rows
from tests.factories.shop import make_dock
from tests.integration.matrix_of_routes import MATRIX

API: Final = sorted({pattern.partition("?")[0] for pattern in MATRIX if pattern.startswith("api/v1/")})
VALUES: Final = {
    "digest": "sha256:" + "a" * 64, "team": "shop", "role": "viewer", "export": "findings.csv", "kind": "findings.csv"
}  # fmt: skip


class Numbers(dict[str, Any]):
    """1 for every id of a row."""

    def __missing__(self, name: str) -> Any:
        return 1


def address(pattern: str) -> str:
    return "/" + pattern.format_map(Numbers(VALUES))


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[Any]:
    """The rows of all tests of this file."""
    with sharing.database(django_db_blocker):
        with sharing.quick_settings():
            made = make_dock()
        yield made


@pytest.fixture(autouse=True)
def dock(world: Any) -> Iterator[Any]:
    """The rows of `world`, copied for one test, which leaves no change."""
    with sharing.taken_back():
        yield copy.deepcopy(world)


@pytest.fixture
def owner(dock: Any) -> Caller:
    return Caller(dock.owner)


@pytest.mark.parametrize("pattern", API)
def test_unknown_parameter_is_refused_by_every_route(owner: Caller, pattern: str) -> None:
    for method in methods(pattern):
        answer = Client().generic(
            method, address(pattern) + "?bogus=1", "{}", content_type="application/json", headers=owner.headers
        )
        assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json"), method
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/bogus"
        assert error["detail"].startswith("Unknown parameter.")


def methods(pattern: str) -> list[str]:
    view = resolve(address(pattern)).func
    actions = getattr(view, "actions", None)
    view_class = getattr(view, "cls", None) or view.view_class  # type: ignore[attr-defined]  # set by `as_view`
    given = actions or {name: name for name in ("get", "post", "put", "patch", "delete") if hasattr(view_class, name)}
    return [name.upper() for name in given if name != "head"]


@pytest.mark.parametrize("query", ["limit=2&limit=2", "tag=1.0&tag=2.0", "repository=a&repository=b"])
def test_repeated_parameter_is_refused(owner: Caller, query: str) -> None:
    answer = Client().get(f"/api/v1/images/?{query}", headers=owner.headers)
    assert answer.status_code == 400
    name = query.partition("=")[0]
    assert answer.json()["errors"] == [
        {"pointer": f"/{name}", "detail": "Give this parameter once. It was given 2 times."}
    ]


def test_known_parameters_are_named_and_accepted(owner: Caller) -> None:
    wrong = owner.get("images/", Repository="shop/api")
    assert wrong.json()["errors"][0]["detail"] == (
        "Unknown parameter. Known parameters: cursor, limit, repository, tag."
    )
    assert owner.get("images/", repository="shop/api", tag="1.0", limit=1).status_code == 200


def test_every_operation_accepts_exactly_its_documented_parameters() -> None:
    """The check and the OpenAPI document read the same declarations."""
    wrong = {}
    for path, operations in SchemaGenerator().get_schema(request=None, public=True)["paths"].items():
        for method, operation in operations.items():
            documented = {item["name"] for item in operation.get("parameters", ()) if item["in"] == "query"}
            accepted = set(parameters_of(view_of(path, method), method.upper()).names)
            if accepted != documented:
                wrong[f"{method} {path}"] = (accepted, documented)
    assert not wrong


def view_of(path: str, method: str) -> Any:
    for values in (Numbers(VALUES | {"id": 1}), Numbers(VALUES | {"id": "a"})):
        try:
            match = resolve(path.format_map(values))
        except Resolver404:
            continue
        view_class = getattr(match.func, "cls", None) or match.func.view_class  # type: ignore[attr-defined]  # set by `as_view`
        view = view_class()
        view.action = getattr(match.func, "actions", {}).get(method)
        return view
    raise AssertionError(path)


@pytest.mark.parametrize("pattern", API)
def test_options_answers_on_every_route(owner: Caller, pattern: str) -> None:
    answer = Client().options(address(pattern), headers=owner.headers)
    assert answer.status_code == 200
    assert set(methods(pattern)) <= set(answer.json()["methods"])
    assert Client().options(address(pattern)).status_code == 401


@pytest.mark.parametrize("pattern", API)
def test_401_is_a_json_problem_whatever_the_request_accepts(pattern: str) -> None:
    for accept in (None, "text/html", "application/yaml", "image/png", "*/*"):
        answer = Client().get(address(pattern), headers={"Accept": accept} if accept else {})
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert answer.status_code in {401, 406}


@pytest.mark.parametrize(
    ("text", "format_", "begins"),
    [("json", "application/vnd.oai.openapi+json", b"{"), ("yaml", "application/vnd.oai.openapi", b"openapi")],
)
def test_schema_has_two_formats(owner: Caller, text: str, format_: str, begins: bytes) -> None:
    answer = owner.get("schema/", format=text)
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith(format_)
    assert answer.content.startswith(begins)
    other = owner.get("schema/", format="xml")
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (400, "/format")


@pytest.mark.parametrize("pattern", API)
def test_null_character_in_a_parameter_is_refused(owner: Caller, pattern: str) -> None:
    view = view_of(address(pattern), "get")
    for name in parameters_of(view, "GET").names:
        answer = Client().get(f"{address(pattern)}?{urlencode({name: 'a' + chr(0)})}", headers=owner.headers)
        assert answer.status_code == 400, name


NESTED: Final = "[" * 100_000 + "]" * 100_000
ODD_BODIES: Final = {
    "null character in a name": r'{"a\u0000b": 1}',
    "null character in a value": r'{"slug": "a\u0000b", "name": "a\u0000b", "reason": "a\u0000"}',
    "half a surrogate pair": r'{"slug": "\ud800", "a\udfff": 1}',
    "deep nesting": NESTED,
    "deep nesting inside": f'{{"slug": {NESTED}}}',
    "no object": "[]",
    "a number": "1",
    "null": "null",
    "not JSON": "{",
    "not a number": '{"days": NaN}',
    "huge number": '{"days": ' + "9" * 5000 + "}",
    "nothing": "",
}


# Answers are stored in the same way whatever was wrong, and each body takes 15 s: `make test-long` has the others.
STORED: Final = {"null character in a value", "half a surrogate pair", "nothing"}


@pytest.mark.parametrize(
    ("body", "key"),
    [pytest.param(body, {}, id=f"{body}-without key") for body in ODD_BODIES]
    + [
        pytest.param(
            body, {"Idempotency-Key": "k1"}, id=f"{body}-with key", marks=() if body in STORED else pytest.mark.long
        )
        for body in ODD_BODIES
    ],
)
def test_odd_body_gets_a_client_error_from_every_route(owner: Caller, body: str, key: dict[str, str]) -> None:
    for pattern in API:
        for method in set(methods(pattern)) - {"GET", "DELETE"}:
            for _ in range(2 if key else 1):  # the second time with a key, the stored response
                answer = Client().generic(
                    method, address(pattern), ODD_BODIES[body], content_type="application/json",
                    headers=owner.headers | {name: f"{value}-{pattern}" for name, value in key.items()},
                )  # fmt: skip
                assert answer.status_code < 500, (pattern, method)


def test_error_that_quotes_a_null_character_is_replayed(owner: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without the check of request bodies, a stored response can hold any JSON text."""
    monkeypatch.setattr("lifecycle.api.parsing._check", lambda value: None)
    send = lambda: Client().post(  # noqa: E731 -- a call with these arguments, made twice
        "/api/v1/teams/", r'{"a\u0000b": 1}', content_type="application/json",
        headers=owner.headers | {"Idempotency-Key": "k1"},
    )  # fmt: skip
    first, again = send(), send()
    assert (first.status_code, again.status_code) == (400, 400)
    assert again["Idempotency-Replayed"] == "true"
    assert first.json() == again.json()


def test_me_says_who_what_and_until_when(dock: Any) -> None:
    other = rows.team("other")
    Membership.objects.get_or_create(team=other, user=dock.requester)
    me = Caller(dock.requester).get("me/").json()
    assert (me["username"], me["kind"], me["is_admin"], me["admin_verbs"]) == ("requester", "person", False, [])
    assert [team["slug"] for team in me["teams"]] == ["other", "shop"]
    assert me["teams"][0]["grants"] == []
    (grant,) = me["teams"][1]["grants"]
    assert (grant["repositories"], grant["environment"], grant["expires_at"]) == ("*", None, None)
    assert {"image.view", "promotion.request"} <= set(grant["verbs"])
    token = dock.requester.api_tokens.get()
    assert me["token"] == {
        "id": token.pk, "name": "t", "begins_with": str(token), "expires_at": token.expires_at.isoformat()[:-6] + "Z",
    }  # fmt: skip


def test_me_of_an_outsider_names_no_team_and_of_a_session_no_token(dock: Any) -> None:
    client = Client()
    client.force_login(dock.outsider, backend="allauth.account.auth_backends.AuthenticationBackend")
    me = client.get("/api/v1/me/").json()
    assert (me["username"], me["teams"], me["token"]) == ("outsider", [], None)


@pytest.mark.parametrize("name", ["tag", "repository", "cursor", "limit"])
def test_empty_parameter_is_refused(owner: Caller, name: str) -> None:
    """An empty variable of a script must not list everything."""
    answer = owner.get("images/", **{name: ""})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, f"/{name}")


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("tokens/", {"name": 0}, "/name"),
        ("tokens/", {"name": "x", "days": "1"}, "/days"),
        ("tokens/", {"name": "x", "days": True}, "/days"),
        ("roles/", {"slug": "x", "name": "x", "verbs": [1]}, "/verbs/0"),
        ("teams/shop/environments/", {"slug": "PATH", "prefix": "x"}, "/slug"),
    ],
)
def test_value_of_another_type_is_refused_at_its_field(dock: Any, path: str, body: Any, pointer: str) -> None:
    answer = Caller(dock.owner).post(path, body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == pointer
