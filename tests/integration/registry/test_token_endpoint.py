"""The token endpoint as a WSGI callable, over real rows."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from cryptography.x509 import load_pem_x509_certificate
from django.conf import settings
from django.utils import timezone

from accounts import tokens
from accounts.models import ApiToken
from accounts.queries import system_user
from lifecycle.authority import limiter
from lifecycle.authority.models import CredentialFailure, RoleGrant
from lifecycle.environments.models import Environment
from lifecycle.oci.scopes import parse_scopes
from lifecycle.registry.models import Repository
from lifecycle.tokens import endpoint
from lifecycle.tokens.rights import allowed_actions
from tests.factories import dock
from tests.factories.people import Person

Make = Callable[..., Person]
pytestmark = pytest.mark.django_db


def call(
    query: str = "",
    *,
    method: str = "GET",
    basic: tuple[str, str] | str | None = None,
    body: bytes | None = None,
    chunked: bool = False,
    **environ: Any,
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Call the endpoint as a server does. Returns (status, JSON, headers)."""
    given: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "QUERY_STRING": query,
        "REMOTE_ADDR": "192.0.2.7",
        "wsgi.input": io.BytesIO(body or b""),
        "CONTENT_LENGTH": "" if chunked or body is None else str(len(body)),
        **environ,
    }
    if chunked:
        given |= {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    if basic is not None:
        text = basic if isinstance(basic, str) else ":".join(basic)
        given["HTTP_AUTHORIZATION"] = "Basic " + base64.b64encode(text.encode()).decode()
    seen: list[Any] = []
    parts = endpoint.application(given, lambda status, headers: seen.extend((status, headers)))  # type: ignore[arg-type]  # a start_response that returns no writer
    return int(seen[0].split()[0]), json.loads(b"".join(parts)), dict(seen[1])


def access(answer: dict[str, Any]) -> dict[str, list[str]]:
    """Return name -> actions of the token, verified as the registry does."""
    key = load_pem_x509_certificate(settings.TOKEN_CERT.encode()).public_key()
    claims = jwt.decode(
        answer["token"],
        key,  # type: ignore[arg-type]  # an elliptic curve key, which the stubs do not narrow to
        algorithms=["ES256"],
        audience=settings.REGISTRY_SERVICE,
        issuer=settings.TOKEN_ISSUER,
    )
    assert all(isinstance(claims[name], int) for name in ("iat", "nbf", "exp"))
    return {entry["name"]: entry["actions"] for entry in claims["access"]}


def ask(who: Person, *scopes: str) -> dict[str, list[str]]:
    query = urlencode([("service", settings.REGISTRY_SERVICE), *(("scope", scope) for scope in scopes)])
    status, answer, headers = call(query, basic=(who.user.username, who.token))
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert answer["token"] == answer["access_token"]
    assert answer["expires_in"] >= 60
    return access(answer)


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("viewer", ["pull"]),
        ("creator", ["pull", "push"]),
        ("maintainer", ["pull", "push", "delete"]),
        ("approver", ["pull"]),
    ],
)
def test_token_grants_only_requested_and_held_actions(person: Make, role: str, expected: list[str]) -> None:
    who = person("anna", role, of=dock.team("shop"))
    assert ask(who, "repository:shop/new:pull,push,delete") == {"shop/new": expected}
    assert ask(who, "repository:shop/new:*") == {"shop/new": expected}
    assert ask(who, "repository:shop/new:pull") == {"shop/new": ["pull"]}
    dock.repository("shop/api")
    assert ask(who, "repository:shop/api:pull,push,delete repository:base/debian:pull") == {"shop/api": expected}


def test_token_grants_nothing_outside_own_team(person: Make) -> None:
    dock.team("base")
    who = person("anna", "owner", of=dock.team("shop"))
    for name in ("base/debian", "nowhere/x", "shopx/api", "sho/api", "shop"):
        assert ask(who, f"repository:{name}:*").get(name, []) == ([] if name != "shop" else ["pull", "push", "delete"])


def test_pattern_limits_a_grant(person: Make) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    RoleGrant.objects.update(repository_pattern="shop/api*")
    assert ask(who, "repository:shop/api-2:push", "repository:shop/web:push") == {"shop/api-2": ["push"]}


def test_environment_prefix_grants_only_pull(person: Make) -> None:
    shop = dock.team("shop")
    Environment.objects.create(team=shop, slug="production", name="Production", position=1, prefix="production")
    owner, stranger = person("anna", "owner", of=shop), person("eve", "owner", of=dock.team("base"))
    for name in ("production/shop/api", "production/shop/new"):
        assert ask(owner, f"repository:{name}:*") == {name: ["pull"]}
        assert ask(stranger, f"repository:{name}:*") == {}
    assert ask(owner, "repository:production/base/x:*", "repository:production/x:*", "repository:production:*") == {}


def test_catalog_is_for_admins_and_who_audits_every_team(person: Make) -> None:
    who = person("anna", "owner", of=dock.team("shop"))
    assert ask(who, "registry:catalog:*") == {"catalog": ["*"]}
    dock.team("base")
    assert ask(who, "registry:catalog:*") == {}
    who.user.is_superuser = True
    who.user.save()
    assert ask(who, "registry:catalog:*") == {"catalog": ["*"]}
    assert ask(who, "repository:base/debian:pull") == {}


@pytest.mark.parametrize("is_on", [True, False])
def test_visitors_pull_only_what_is_public_where_that_is_on(settings: Any, is_on: bool) -> None:
    settings.ANONYMOUS_ACCESS = is_on
    for visibility in Repository.Visibility.values:
        dock.repository(f"shop/{visibility}")
        Repository.objects.filter(name=f"shop/{visibility}").update(visibility=visibility)
    vault = dock.repository("shop/vault")
    Repository.objects.filter(pk=vault.pk).update(visibility="public", family="shop/public")
    names = ("private", "internal", "public", "vault", "absent")
    status, answer, _ = call(urlencode([*(("scope", f"repository:shop/{name}:*") for name in names),
                                        ("scope", "registry:catalog:*")]))  # fmt: skip
    assert (status, access(answer)) == (200, {"shop/public": ["pull"]} if is_on else {})
    assert jwt.decode(answer["token"], options={"verify_signature": False})["sub"] == ""
    assert "refresh_token" not in call("offline_token=true")[1]


def test_inactive_user_and_revoked_token_are_refused(person: Make) -> None:
    who = person("anna", "owner", of=dock.team("shop"))
    row = ApiToken.objects.get()
    tokens.revoke(row)
    assert call(basic=("anna", who.token))[0] == 401
    ApiToken.objects.update(revoked_at=None)
    assert call(basic=("anna", who.token))[0] == 200
    who.user.is_active = False
    who.user.save()
    assert call(basic=("anna", who.token))[0] == 401


def test_revoked_right_ends_with_next_token_within_five_minutes(person: Make) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    status, answer, _ = call("scope=repository:shop/api:pull,push&offline_token=true", basic=("anna", who.token))
    assert (status, access(answer)) == (200, {"shop/api": ["pull", "push"]})
    assert answer["expires_in"] <= 300
    form = {
        "grant_type": "refresh_token",
        "refresh_token": answer["refresh_token"],
        "scope": "repository:shop/api:push",
    }
    body = urlencode(form).encode()
    assert access(call(method="POST", body=body)[1]) == {"shop/api": ["push"]}
    RoleGrant.objects.update(expires_at=timezone.now())
    assert access(call(method="POST", body=body)[1]) == {}
    assert ask(who, "repository:shop/api:pull,push") == {}
    RoleGrant.objects.all().delete()
    assert ask(who, "repository:shop/api:pull,push") == {}


@pytest.mark.parametrize(
    "password",
    ["", "dock-side-pass", "\x00", "x" * 1_000, pytest.param("x" * 1_000_000, id="1 MB"), "gdk_pat_" + "a" * 40],
)
def test_account_passwords_and_malformed_ones_are_refused(person: Make, password: str) -> None:
    person("anna", "owner", of=dock.team("shop"))
    status, answer, headers = call(basic=("anna", password))
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Basic ")
    assert "token" not in answer


def test_token_is_valid_only_with_its_own_user_name(person: Make) -> None:
    who = person("anna", "owner", of=dock.team("shop"))
    for name in ("eve", "", "Anna", "token", system_user().username):
        assert call(basic=(name, who.token))[0] == 401


def test_anonymous_request_gets_token_without_access() -> None:
    status, answer, _ = call("scope=repository:shop/api:pull")
    assert (status, access(answer)) == (200, {})


def test_other_service_is_refused(person: Make) -> None:
    who = person("anna", "owner", of=dock.team("shop"))
    assert call("service=other", basic=("anna", who.token))[0] == 400
    assert call(f"service={settings.REGISTRY_SERVICE}&service=other", basic=("anna", who.token))[0] == 400


@pytest.mark.parametrize("chunked", [False, True])
def test_password_grant_works_in_a_chunked_body_too(person: Make, chunked: bool) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    form = {
        "grant_type": "password",
        "username": "anna",
        "password": who.token,
        "service": settings.REGISTRY_SERVICE,
        "scope": "repository:shop/api:pull,push repository:base/x:pull",
        "access_type": "offline",
    }
    status, answer, _ = call(method="POST", body=urlencode(form).encode(), chunked=chunked)
    assert (status, answer["scope"]) == (200, "repository:shop/api:pull,push")
    assert answer["refresh_token"].startswith("gdk_ref_")
    again = {
        "grant_type": "refresh_token",
        "refresh_token": answer["refresh_token"],
        "service": settings.REGISTRY_SERVICE,
        "scope": "repository:shop/api:pull",
    }
    status, answer, _ = call(method="POST", body=urlencode(again).encode(), chunked=chunked)
    assert (status, access(answer)) == (200, {"shop/api": ["pull"]})


def test_refresh_token_is_bound_and_revocable(person: Make) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    _, answer, _ = call("offline_token=true&client_id=docker", basic=("anna", who.token))
    text = answer["refresh_token"]
    assert call(basic=("anna", text))[0] == 401  # not usable as a password
    body = urlencode({"grant_type": "refresh_token", "refresh_token": text}).encode()
    assert call(method="POST", body=body)[0] == 200
    ApiToken.objects.filter(kind="ref").update(service="another-registry")
    assert call(method="POST", body=body)[0] == 401
    ApiToken.objects.filter(kind="ref").update(service=settings.REGISTRY_SERVICE)
    who.user.is_active = False
    who.user.save()
    assert call(method="POST", body=body)[0] == 401
    wrong = urlencode({"grant_type": "refresh_token", "refresh_token": who.token}).encode()
    assert call(method="POST", body=wrong)[0] == 401


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"method": "POST", "body": b"x" * 70_000}, 413),
        ({"method": "POST", "body": b"x" * 70_000, "chunked": True}, 413),
        ({"method": "POST", "body": b"grant_type=password&grant_type=refresh_token"}, 400),
        ({"method": "POST", "body": b""}, 400),
        ({"method": "POST", "body": b"", "CONTENT_LENGTH": "abc"}, 400),
        ({"method": "POST", "body": b"\xff\xfe"}, 400),
        ({"method": "POST", "body": b"&".join(b"a=%d" % n for n in range(3000))}, 400),
        ({"method": "PUT"}, 405),
        ({"method": "HEAD"}, 405),
        ({"HTTP_AUTHORIZATION": "Basic !!!"}, 401),
        ({"HTTP_AUTHORIZATION": "Basic " + base64.b64encode(b"\xff\xff:x").decode()}, 401),
        ({"HTTP_AUTHORIZATION": "Bearer x"}, 401),
        ({"query": "scope=" + "a" * 70_000}, 414),
        ({"query": "&".join(["scope=repository:a:pull"] * 1000)}, 200),
        ({"query": "scope=%ff%00:%00:%00"}, 200),
    ],
)
def test_bad_requests_never_cause_a_500(arguments: dict[str, Any], expected: int) -> None:
    assert call(**arguments)[0] == expected


def test_failed_sign_ins_use_one_budget_that_success_does_not_reset(person: Make) -> None:
    who = person("anna", "viewer", of=dock.team("shop"))
    statuses = []
    for number in range(limiter.PER_ACCOUNT + 5):
        spoofed = f"203.0.113.{number}"
        statuses.append(call(basic=("anna", "wrong"), HTTP_X_FORWARDED_FOR=spoofed, REMOTE_ADDR=spoofed)[0])
        assert call(basic=("anna", who.token))[0] == 200  # a valid token is never locked out
    assert statuses == [401] * limiter.PER_ACCOUNT + [429] * 5
    assert limiter.is_exhausted("ANNA", None)
    assert not limiter.is_exhausted("bert", "192.0.2.7")


def test_address_has_a_budget_too() -> None:
    CredentialFailure.objects.bulk_create(
        CredentialFailure(account=str(number), address="192.0.2.7") for number in range(limiter.PER_ADDRESS)
    )
    status, answer, headers = call(basic=("anna", "wrong"))
    assert (status, headers["Retry-After"]) == (429, "300")
    assert "Wait five minutes, then try again." in answer["error_description"]
    assert call(basic=("anna", "wrong"), REMOTE_ADDR="192.0.2.8")[0] == 401


@pytest.mark.django_db(transaction=True)
def test_fifty_concurrent_attempts_cannot_exceed_the_budget() -> None:
    from django.db import connection

    statuses: list[int] = []

    def attempt() -> None:
        try:
            statuses.append(call(basic=("anna", "wrong"))[0])
        finally:
            connection.close()

    threads = [threading.Thread(target=attempt) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statuses.count(401), statuses.count(429)) == (limiter.PER_ACCOUNT, 50 - limiter.PER_ACCOUNT)


def test_many_scopes_cost_same_queries_as_one(person: Make, django_assert_num_queries: Any) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    for count in (1, 50):
        ask(who, "repository:shop/warm:pull")  # writes the last use now, so not again within the minute
        # Changes, token, what it depends on, grants, repositories, prefixes; in a transaction nothing is kept.
        with django_assert_num_queries(6):
            ask(who, *(f"repository:shop/r{number}:pull" for number in range(count)))


def test_only_other_methods_are_told_which_are_allowed() -> None:
    assert call(method="PUT")[2]["Allow"] == "GET, POST"
    for arguments in ({}, {"HTTP_AUTHORIZATION": "Bearer x"}):
        assert "Allow" not in call(**arguments)[2]


@pytest.mark.parametrize(
    "header",
    [
        "Bearer " + base64.b64encode(b"anna:right").decode(),  # the scheme counts, also where the rest is right
        "Basic " + base64.b64encode(b"anna").decode(),
        "Basic " + base64.b64encode(b"anna:" + b"x" * 9 * endpoint.CREDENTIAL_MAX).decode(),
    ],
    ids=["scheme", "no colon", "too long"],
)
def test_malformed_header_is_refused_as_such_and_costs_no_budget(header: str) -> None:
    status, answer, headers = call(HTTP_AUTHORIZATION=header)
    assert (status, headers["WWW-Authenticate"][:5]) == (401, "Basic")
    assert "malformed" in answer["error_description"]
    assert not CredentialFailure.objects.exists()


def test_blank_service_is_another_service() -> None:
    assert call("service=")[0] == 400


def test_refresh_token_is_only_made_when_asked_for_and_its_use_is_noted(person: Make) -> None:
    who = person("anna", "creator", of=dock.team("shop"))
    form = {"grant_type": "password", "username": "anna", "password": who.token}
    assert "refresh_token" not in call(method="POST", body=urlencode(form).encode())[1]
    assert "refresh_token" not in call(basic=("anna", who.token))[1]
    answer = call(method="POST", body=urlencode(form | {"access_type": "offline"}).encode())[1]
    ApiToken.objects.update(last_used_at=None)
    form = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
    status, answer, _ = call(method="POST", body=urlencode(form).encode())
    assert (status, answer["refresh_token"]) == (200, form["refresh_token"])
    assert ApiToken.objects.get(kind="ref").last_used_at is not None
    assert jwt.decode(answer["token"], options={"verify_signature": False})["sub"] == "anna"


def test_grant_for_one_environment_reads_only_its_images(person: Make) -> None:
    shop = dock.team("shop")
    names = ("dev", "production")
    dev, _ = (
        Environment.objects.create(team=shop, slug=name, name=name, position=place, prefix=name)
        for place, name in enumerate(names)
    )
    who = person("anna", "owner", of=shop)
    RoleGrant.objects.update(environment=dev)
    assert ask(who, "repository:dev/shop/api:*", "repository:production/shop/api:*", "repository:shop/api:*") == {
        "dev/shop/api": ["pull"]
    }


def test_environment_repository_without_its_prefix_is_only_pulled(person: Make) -> None:
    """The prefix of an environment can change; what it filled before stays its own."""
    shop = dock.team("shop")
    row = dock.repository("old/shop/api", shop)
    row.source = dock.repository("shop/api", shop)
    row.environment = Environment.objects.create(team=shop, slug="dev", name="Dev", position=1, prefix="new")
    row.save()
    assert ask(person("anna", "owner", of=shop), "repository:old/shop/api:*") == {"old/shop/api": ["pull"]}


def test_inactive_user_is_allowed_nothing(person: Make) -> None:
    who = person("anna", "owner", of=dock.team("shop"))
    scopes = parse_scopes(["repository:shop/api:pull"])
    assert allowed_actions(who.user, scopes)[("repository", "shop/api")] >= {"pull"}
    who.user.is_active = False
    assert allowed_actions(who.user, scopes) == {}
