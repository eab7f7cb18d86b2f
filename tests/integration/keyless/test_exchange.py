"""Identity tokens of a real issuer, exchanged for tokens of a robot."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts import tokens
from accounts.models import ApiToken, User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services as authority
from lifecycle.authority.models import CredentialFailure, RoleGrant
from lifecycle.core.context import RequestContext, request_context
from lifecycle.core.errors import Conflict, Malformed, NotPermitted
from lifecycle.keyless import endpoint, services
from lifecycle.keyless.constants import GRANT_TYPE, TOKEN_LIFE_S
from lifecycle.keyless.issuers import ISSUERS
from lifecycle.keyless.models import Exchange, TrustRule
from lifecycle.oci.scopes import parse_scopes
from lifecycle.tokens.rights import allowed_actions
from tests.fakes.issuer import Issuer

pytestmark = pytest.mark.django_db
JWT = "urn:ietf:params:oauth:token-type:jwt"


@pytest.fixture
def issuer(settings: Any) -> Iterator[Issuer]:
    made = Issuer()
    settings.OUTBOUND_ALLOW = [made.address]
    ISSUERS.forget()
    yield made
    made.stop()
    ISSUERS.forget()


@pytest.fixture
def shop(issuer: Issuer) -> SimpleNamespace:
    """Team shop, its owner kim, robot shop+ci with role creator, and a rule for the main branch of acme/shop."""
    team = authority.create_team(actor=system_user(), slug="shop", name="Shop")
    kim = User.objects.create(username="kim")
    authority.add_member(team.pk, actor=system_user(), username="kim", role="owner")
    robot = authority.create_robot(team.pk, actor=kim, name="ci")
    authority.grant_robot(robot.pk, actor=kim, role="creator")
    rule = services.create_rule(
        robot.pk, actor=kim, name="main", issuer=issuer.url, audience="http://localhost",
        claims={"repository": "acme/shop", "ref": "refs/heads/*"},
    )  # fmt: skip
    return SimpleNamespace(team=team, kim=kim, robot=robot, rule=rule)


@pytest.fixture(autouse=True)
def _keeps_the_tests_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "close_old_connections", lambda: None)


def post(token: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Exchange a token over the endpoint; returns (status, JSON)."""
    form = {"grant_type": GRANT_TYPE, "subject_token_type": JWT, "subject_token": token, **more}
    body = urlencode({name: value for name, value in form.items() if value is not None}).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/auth/exchange", "REMOTE_ADDR": "192.0.2.9",
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
    }  # fmt: skip
    seen: list[Any] = []
    parts = endpoint.application(environ, lambda *answer: seen.extend(answer))  # type: ignore[arg-type]  # a start_response that returns no writer
    assert dict(seen[1])["Cache-Control"] == "no-store"
    return int(seen[0].split()[0]), json.loads(b"".join(parts))


@pytest.mark.parametrize("by", ["rsa", "ec"])
def test_job_gets_a_token_of_the_robot_for_15_minutes(shop: Any, issuer: Issuer, by: str) -> None:
    status, answer = post(issuer.token(by=by))
    assert status == 200, answer
    assert (answer["token_type"], answer["expires_in"], answer["username"]) == ("Bearer", TOKEN_LIFE_S, "shop+ci")
    row = tokens.find_token(answer["access_token"])
    assert row is not None
    assert 0 < (row.expires_at - timezone.now()).total_seconds() <= TOKEN_LIFE_S
    actions = allowed_actions(row.user, parse_scopes(["repository:shop/api:*"]))
    assert actions["repository", "shop/api"] == {"pull", "push"}
    api = Client(headers={"Authorization": f"Bearer {answer['access_token']}"})
    assert api.get("/api/v1/me/").json()["username"] == "shop+ci"
    event = AuditEvent.objects.get(action="token.exchanged")
    assert event.details["subject"] == "repo:acme/shop:ref:refs/heads/main"
    assert event.details["rule"] == "main"
    assert "http" in event.details["issuer"]


@pytest.mark.parametrize("more", [{}, {"jti": None}], ids=["jti", "no jti"])
def test_identity_token_is_accepted_once(shop: Any, issuer: Issuer, more: dict[str, Any]) -> None:
    text = issuer.token(**more)
    assert post(text)[0] == 200
    status, answer = post(text)
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert "already" in answer["error_description"]
    assert post(issuer.token(sub="repo:acme/shop:other", **more))[0] == 200
    assert ApiToken.objects.filter(service="keyless").count() == 2


def test_same_token_with_another_signature_is_the_same_token(shop: Any, issuer: Issuer) -> None:
    claims = issuer.claims(jti=None)
    one, other = (jwt.encode(claims, issuer.ec, algorithm="ES256", headers={"kid": "ec"}) for _ in range(2))
    assert one != other
    assert [post(one)[0], post(other)[0]] == [200, 400]


@pytest.mark.parametrize(
    "more",
    [
        {"aud": "https://other.example.com"},
        {"aud": []},
        {"aud": ["http://localhost/"]},
        {"aud": None},
        {"repository": "acme/other"},
        {"repository": "evil/shop"},
        {"repository": ""},
        {"repository": None},
        {"repository": ["acme/shop"]},
        {"ref": "refs/tags/v1"},
        {"sub": ""},
        {"sub": None},
        {"exp": -3600},
        {"exp": None},
        {"iat": None},
        {"iat": 3600, "exp": 7200},
        {"nbf": 3600},
        {"exp": 200_000},
        {"iss": "https://token.actions.githubusercontent.com"},
        {"iss": ""},
    ],
    ids=str,
)
def test_identity_that_does_not_satisfy_the_rule_gets_nothing(shop: Any, issuer: Issuer, more: dict[str, Any]) -> None:
    now = int(time.time())  # numbers are seconds from now
    more = {name: now + value if isinstance(value, int) else value for name, value in more.items()}
    status, answer = post(issuer.token(**more))
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert not ApiToken.objects.filter(service="keyless").exists()
    assert CredentialFailure.objects.filter(address="192.0.2.9").count() == 1
    assert post(issuer.token())[0] == 200  # its allowed twin


def forged(issuer: Issuer) -> dict[str, str]:
    """Return tokens that somebody else made."""
    mine = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    good = issuer.token()
    head, body, signature = good.split(".")
    other_body = jwt.encode(issuer.claims(ref="refs/heads/x"), mine, algorithm="RS256").split(".")[1]
    claims = issuer.claims()
    return {
        "another key": issuer.token(key=mine),
        "key in the header": issuer.token(key=mine, headers={"jwk": public, "jku": f"{issuer.url}/keys"}),
        "none": jwt.encode(claims, None, algorithm="none", headers={"kid": "rsa"}),
        "hmac with an own secret": jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"kid": "rsa"}),
        "key of another algorithm": jwt.encode(claims, issuer.ec, algorithm="ES256", headers={"kid": "rsa"}),
        "unknown key id": issuer.token(headers={"kid": "../../etc/passwd"}),
        "no signature": f"{head}.{body}.",
        "changed body": f"{head}.{other_body}.{signature}",
        "crit": issuer.token(headers={"crit": ["exp"]}),
        "two parts": f"{head}.{body}",
        "not json": "a.b.c",
    }


def test_forged_identities_are_refused(shop: Any, issuer: Issuer) -> None:
    for name, text in forged(issuer).items():
        status, answer = post(text)
        assert (status, answer["error"]) == (400, "invalid_grant"), name
    assert not ApiToken.objects.filter(service="keyless").exists()
    assert post(issuer.token())[0] == 200


@pytest.mark.filterwarnings("ignore:The RSA key")  # of PyJWT, when the test signs
def test_short_rsa_key_of_an_issuer_is_refused(shop: Any, issuer: Issuer) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    issuer.extra_keys = [
        {**jwt.algorithms.RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True), "kid": "weak", "use": "sig"}
    ]
    assert post(issuer.token(key=weak, headers={"kid": "weak"}))[0] == 400


def test_only_issuers_of_rules_are_called(shop: Any, issuer: Issuer, settings: Any) -> None:
    stranger = Issuer()
    settings.OUTBOUND_ALLOW = [issuer.address, stranger.address]
    try:
        assert post(stranger.token())[0] == 400
        assert stranger.asked == []
    finally:
        stranger.stop()


def test_internal_address_is_not_called_unless_allowed(shop: Any, issuer: Issuer, settings: Any) -> None:
    settings.OUTBOUND_ALLOW = []
    status, answer = post(issuer.token())
    assert (status, answer["error"], issuer.asked) == (503, "temporarily_unavailable", [])
    settings.OUTBOUND_ALLOW = [issuer.address]
    ISSUERS.forget()  # else it is left alone for a while
    assert post(issuer.token())[0] == 200


def test_keys_are_kept_and_asked_for_again_when_one_is_new(shop: Any, issuer: Issuer, monkeypatch: Any) -> None:
    issuer.hidden = {"ec"}
    assert [post(issuer.token())[0] for _ in range(3)] == [200, 200, 200]
    assert len(issuer.asked) == 2  # discovery and keys
    issuer.hidden = set()
    assert post(issuer.token(by="ec"))[0] == 400  # asked a moment ago
    monkeypatch.setattr("lifecycle.keyless.issuers.AGAIN_AFTER_S", 0.0)
    assert post(issuer.token(by="ec"))[0] == 200
    issuer.status = 500
    monkeypatch.setattr("lifecycle.keyless.issuers.KEEP_S", 0.0)
    assert post(issuer.token())[0] == 200  # its last keys count for an hour
    monkeypatch.setattr("lifecycle.keyless.issuers.STALE_MAX_S", 0.0)
    assert post(issuer.token())[0] == 503


@pytest.mark.parametrize("document", [{"issuer": "http://other"}, {"jwks_uri": 7}, {"jwks_uri": "https://127.0.0.1/"}])
def test_discovery_that_names_another_issuer_or_place_counts_nothing(
    shop: Any, issuer: Issuer, document: dict[str, Any]
) -> None:
    issuer.document = document
    assert post(issuer.token())[0] == 503
    issuer.document = {}
    ISSUERS.forget()  # else it is left alone for a while
    assert post(issuer.token())[0] == 200


def test_rule_has_never_more_than_who_made_it(shop: Any, issuer: Issuer) -> None:
    RoleGrant.objects.filter(user=shop.kim).update(repository_pattern="shop/a*")
    assert post(issuer.token())[0] == 400
    RoleGrant.objects.filter(user=shop.kim).update(repository_pattern="*")
    assert post(issuer.token())[0] == 200


def test_who_left_stops_the_rule_and_the_tokens(shop: Any, issuer: Issuer) -> None:
    lee = User.objects.create(username="lee")
    authority.add_member(shop.team.pk, actor=system_user(), username="lee", role="owner")
    status, answer = post(issuer.token())
    assert status == 200
    User.objects.filter(pk=shop.kim.pk).update(is_active=False)
    assert tokens.find_token(answer["access_token"]) is None
    assert post(issuer.token())[0] == 400
    authority.take_over_robot(shop.robot.pk, actor=lee)
    status, answer = post(issuer.token())
    assert status == 400
    assert "made the rule" in answer["error_description"]


def test_ended_rule_gives_nothing_and_its_tokens_end(shop: Any, issuer: Issuer) -> None:
    _, answer = post(issuer.token())
    services.end_rule(shop.robot.pk, shop.rule.pk, actor=shop.kim)
    assert tokens.find_token(answer["access_token"]) is None
    assert post(issuer.token())[0] == 400
    assert list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))[-2:] == [
        "token.revoked", "trust_rule.ended",
    ]  # fmt: skip


def test_rules_of_two_robots_need_a_name(shop: Any, issuer: Issuer) -> None:
    other = authority.create_robot(shop.team.pk, actor=shop.kim, name="other")
    services.create_rule(
        other.pk, actor=shop.kim, name="too", issuer=issuer.url, audience="http://localhost",
        claims={"sub": "repo:acme/shop:*"},
    )  # fmt: skip
    status, answer = post(issuer.token())
    assert (status, answer["error"]) == (400, "invalid_request")
    assert "shop+ci, shop+other" in answer["error_description"]
    assert post(issuer.token(), robot="shop+other")[1]["username"] == "shop+other"
    assert post(issuer.token(), robot="shop+none")[0] == 400


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"grant_type": "password"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token": "x" * 17_000}, "invalid_request"),
    ],
)
def test_malformed_requests_are_refused(shop: Any, issuer: Issuer, more: dict[str, str], error: str) -> None:
    status, answer = post(**{"token": issuer.token(), **more})
    assert (status, answer["error"]) == (400, error)
    assert CredentialFailure.objects.count() == 0


def test_too_many_wrong_tokens_of_an_address_are_stopped(shop: Any, issuer: Issuer) -> None:
    CredentialFailure.objects.bulk_create(CredentialFailure(account="", address="192.0.2.9") for _ in range(100))
    assert post(issuer.token())[0] == 429


@pytest.mark.django_db(transaction=True)
def test_one_identity_used_ten_times_at_once_gives_one_token(shop: Any, issuer: Issuer) -> None:
    text, statuses = issuer.token(), []

    def attempt() -> None:
        try:
            statuses.append(post(text)[0])
        finally:
            connection.close()

    threads = [threading.Thread(target=attempt) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [400] * 9
    assert Exchange.objects.count() == 1


def test_old_exchanges_are_deleted_with_their_tokens(shop: Any, issuer: Issuer) -> None:
    post(issuer.token())
    assert services.forget_old() == 0
    long_ago = timezone.now() - timezone.timedelta(hours=2)
    Exchange.objects.update(forget_at=long_ago)
    ApiToken.objects.update(expires_at=long_ago)
    assert services.forget_old() == 1
    assert not ApiToken.objects.filter(service="keyless").exists()


def test_who_may_make_a_rule(shop: Any, issuer: Issuer) -> None:
    wish = {"name": "x", "issuer": issuer.url, "claims": {"repository": "acme/shop"}}
    viewer = User.objects.create(username="vic")
    authority.add_member(shop.team.pk, actor=system_user(), username="vic", role="viewer")
    with pytest.raises(NotPermitted):
        services.create_rule(shop.robot.pk, actor=viewer, **wish)
    made = services.create_rule(shop.robot.pk, actor=shop.kim, **wish)
    assert made.audience == "http://localhost" or made.audience.startswith("http")
    for bad in ({"issuer": "ftp://x"}, {"issuer": "http://plain.example.com"}, {"name": ""}, {"audience": "*"},
                {"claims": {"repository": "*"}}):  # fmt: skip
        with pytest.raises(Malformed):
            services.create_rule(shop.robot.pk, actor=shop.kim, **{**wish, **bad})
    authority.retire_robot(shop.robot.pk, actor=shop.kim)
    with pytest.raises(Conflict):
        services.create_rule(shop.robot.pk, actor=shop.kim, **wish)


def test_rule_can_be_tried_without_using_the_token_up(shop: Any, issuer: Issuer, run: Any, monkeypatch: Any) -> None:
    text = issuer.token()
    assert services.try_rule(shop.rule, text).is_accepted
    trial = services.try_rule(shop.rule, issuer.token(ref="refs/tags/v1"))
    assert not trial.is_accepted
    assert trial.reason == "ref is refs/tags/v1, the rule wants refs/heads/*."
    assert [(check.claim, check.holds) for check in trial.checks] == [("ref", False), ("repository", True)]
    assert not services.try_rule(shop.rule, issuer.token(aud="x")).is_accepted
    assert not services.try_rule(shop.rule, "x").is_accepted
    page = Client()
    page.force_login(shop.kim, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = f"/teams/shop/robots/{shop.robot.pk}/keyless/"
    shown = page.post(f"{where}{shop.rule.pk}/try/", {"token": text}).content.decode()
    assert "Accepted" in shown
    assert "docker login" in page.get(where).content.decode()
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code, out, err = run(shop.kim, "trust-rule", "try", "shop+ci", shop.rule.pk)
    assert (code, "Accepted." in err) == (0, True), (out, err)
    monkeypatch.setattr("sys.stdin", io.StringIO(issuer.token(repository="evil/shop")))
    code, out, err = run(shop.kim, "trust-rule", "try", "shop+ci", shop.rule.pk)
    assert (code, "evil/shop" in out) == (3, True), (out, err)
    assert post(text)[0] == 200


def test_rules_are_made_and_ended_by_page_and_command(shop: Any, issuer: Issuer, run: Any) -> None:
    page = Client()
    page.force_login(shop.kim, backend="allauth.account.auth_backends.AuthenticationBackend")
    where = f"/teams/shop/robots/{shop.robot.pk}/keyless/"
    wish = {"name": "tags", "issuer": issuer.url, "claims": "repository=acme/shop\nref=refs/tags/*", "audience": ""}
    assert page.post(where, wish).status_code == 302
    refused = page.post(where, {**wish, "claims": "repository=*"})
    assert refused.status_code == 422
    assert "repository=*" in refused.content.decode()
    code, out, err = run(
        shop.kim, "trust-rule", "create", "shop+ci", "--name", "cli", "--issuer", issuer.url, "--claim",
        "repository=acme/cli",
    )  # fmt: skip
    assert code == 0, err
    code, out, err = run(shop.kim, "trust-rule", "list", "shop+ci")
    assert (code, [name in out for name in ("main", "tags", "cli")]) == (0, [True] * 3), (out, err)
    made = TrustRule.objects.get(name="cli")
    assert run(shop.kim, "trust-rule", "end", "shop+ci", made.pk)[0] == 0
    tags = TrustRule.objects.get(name="tags")
    assert page.post(f"{where}{tags.pk}/end/").status_code == 302
    assert list(TrustRule.objects.filter(ended_at=None).values_list("name", flat=True)) == ["main"]


def make_rule(actor: User, shop: Any, issuer: Issuer, *, lookup: str = "") -> TrustRule:
    TrustRule.objects.update(ended_at=timezone.now())  # so that the new one decides
    with request_context(RequestContext(token_lookup=lookup)):
        return services.create_rule(
            shop.robot.pk, actor=actor, name="new", issuer=issuer.url, audience="http://localhost",
            claims={"repository": "acme/shop"},
        )  # fmt: skip


def test_rule_made_with_a_token_ends_with_it_and_so_do_its_tokens(shop: Any, issuer: Issuer) -> None:
    used, _ = tokens.create_token(shop.kim, kind="pat", name="cli", days=1)
    assert make_rule(shop.kim, shop, issuer, lookup=used.lookup).made_with == used
    status, answer = post(issuer.token())
    assert status == 200
    ApiToken.objects.filter(pk=used.pk).update(revoked_at=timezone.now())
    assert tokens.find_token(answer["access_token"]) is None
    status, refused = post(issuer.token())
    assert (status, "with a token" in refused["error_description"]) == (400, True)
    make_rule(shop.kim, shop, issuer)  # in the browser
    assert post(issuer.token())[0] == 200


def test_robot_makes_no_trust_rule(shop: Any, issuer: Issuer) -> None:
    authority.grant_robot(shop.robot.pk, actor=shop.kim, role="owner")
    with pytest.raises(NotPermitted, match="Only people"):
        make_rule(shop.robot.user, shop, issuer)
    assert make_rule(shop.kim, shop, issuer).made_with is None


def test_issuer_that_is_away_is_left_alone_and_tries_count(shop: Any, issuer: Issuer, monkeypatch: Any) -> None:
    issuer.status = 500
    assert [post(issuer.token())[0] for _ in range(3)] == [503, 503, 503]
    assert len(issuer.asked) == 1
    assert CredentialFailure.objects.count() == 3  # of this address
    issuer.status = 200
    assert post(issuer.token())[0] == 503
    monkeypatch.setattr("lifecycle.keyless.issuers.AGAIN_AFTER_S", 0.0)
    assert post(issuer.token())[0] == 200
