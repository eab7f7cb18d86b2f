"""Step-up and signed votes (security.md G14, ASVS 7.5.3): a token or an old sign-in approves nothing in production."""

from __future__ import annotations

import html
import json
import re
import time
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services as authority
from lifecycle.authority.models import Passkey, SecuritySettings, TotpSecret
from lifecycle.core.context import RequestContext, request_context
from lifecycle.core.errors import StepUpRequired
from lifecycle.environments.models import Environment
from lifecycle.promotion import services
from lifecycle.promotion.environments import RuleWish, change_environment
from lifecycle.promotion.models import PromotionRequest, Vote
from lifecycle.promotion.signing import _promotion
from lifecycle.signatures.votes import BadVote, check_record, check_vote, key_sha256
from tests.clients import Caller, browser
from tests.fakes.passkeys import Authenticator

pytestmark = pytest.mark.django_db


@pytest.fixture
def production(dock: Any, request_: PromotionRequest) -> PromotionRequest:
    """A request for an environment that is production, on a site where approvals there need a step-up."""
    Environment.objects.filter(pk=dock.staging.pk).update(is_production=True)
    turn_step_up(True)
    return request_


def turn_step_up(is_on: bool) -> None:
    admin, _ = User.objects.get_or_create(username="admin", is_superuser=True)
    with request_context(RequestContext(strong_at=time.time())):  # turning it off needs a fresh second factor
        authority.change_security(
            actor=admin, second_factor_for_admins=False, second_factor_for_roles=[], step_up_is_on=is_on
        )


def with_factor(user: User, *, seconds_ago: float | None) -> Client:
    """Return a browser of `user` that proved a second factor `seconds_ago`, or never."""
    TotpSecret.objects.get_or_create(user=user)
    client = browser(user)
    if seconds_ago is not None:
        session = client.session
        session["account_authentication_methods"] = [{"method": "mfa", "type": "totp", "at": time.time() - seconds_ago}]
        from allauth.account.internal.flows import login

        session[login._AUTHENTICATION_METHODS_USER_SESSION_KEY] = str(user.pk)
        session.save()
    return client


def with_passkey(user: User) -> Authenticator:
    key = Authenticator(settings.PUBLIC_URL)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    Passkey.objects.create(user=user, name="laptop", credential_id=key.credential_id, public_key=public)
    return key


def options_in(page: Any) -> dict[str, Any]:
    found = re.search(r'data-options="([^"]+)"', page.content.decode())
    assert found, page.content.decode()[:2000]
    options: dict[str, Any] = json.loads(html.unescape(found[1]))
    return options


def sign(client: Client, key: Authenticator, request: PromotionRequest, *, reason: str = "read") -> Any:
    page = client.post(f"/promotions/{request.pk}/approve/", {"reason": reason})
    assert page.status_code == 200
    assertion = json.dumps(key.get(options_in(page)))
    return client.post(f"/promotions/{request.pk}/approve/", {"reason": reason, "assertion": assertion})


def state_of(request: PromotionRequest) -> str:
    return PromotionRequest.objects.get(pk=request.pk).state


@pytest.mark.parametrize(("is_on", "status"), [(True, 403), (False, 200)])
def test_asvs_7_5_3_token_approves_nothing_in_production(dock: Any, production: Any, is_on: bool, status: int) -> None:
    turn_step_up(is_on)
    answer = Caller(dock.approver).post(f"promotions/{production.pk}/approve/", {"reason": "read"})
    assert answer.status_code == status
    if is_on:
        assert answer.json()["code"] == "step_up_required"
        assert not Vote.objects.exists()


def test_token_approves_where_it_is_no_production(dock: Any, production: Any) -> None:
    Environment.objects.filter(pk=dock.staging.pk).update(is_production=False)
    assert Caller(dock.approver).post(f"promotions/{production.pk}/approve/", {"reason": "read"}).status_code == 200


def test_token_may_still_object_and_reject(dock: Any, production: Any) -> None:
    assert Caller(dock.second).post(f"promotions/{production.pk}/object/", {"reason": "no"}).status_code == 200
    assert Caller(dock.approver).post(f"promotions/{production.pk}/reject/", {"reason": "no"}).status_code == 200


@pytest.mark.parametrize(("seconds_ago", "votes"), [(14 * 60, True), (16 * 60, False), (None, False), (-3600, False)])
def test_second_factor_counts_for_15_minutes(
    dock: Any, production: Any, seconds_ago: float | None, votes: bool
) -> None:
    client = with_factor(dock.approver, seconds_ago=seconds_ago)
    answer = client.post(f"/promotions/{production.pk}/approve/", {"reason": "read it all"})
    assert Vote.objects.filter(request=production, value="approve").exists() is votes
    where = f"/promotions/{production.pk}/"
    if votes:
        assert answer["Location"] == where
    else:
        assert answer["Location"] == f"/account/confirm/?next=%2Fpromotions%2F{production.pk}%2F"
        # Back on the page, what was typed is there again, once.
        assert "read it all" in client.get(where).content.decode()
        assert "read it all" not in client.get(where).content.decode()


def test_who_has_no_second_factor_is_led_to_set_one_up(dock: Any, production: Any) -> None:
    client = browser(dock.approver)
    answer = client.post(f"/promotions/{production.pk}/approve/", {"reason": "read"})
    assert answer["Location"] == "/account/security/"
    assert "Set one up" in client.get("/account/security/").content.decode()
    assert not Vote.objects.exists()


def test_bulk_approval_needs_it_too(dock: Any, production: Any) -> None:
    form = {"act": "approve", "ids": [str(production.pk)], "next": "inbox"}
    old, fresh = (with_factor(dock.approver, seconds_ago=ago) for ago in (3600, 60))
    assert old.post("/promotions/bulk/", form)["Location"].startswith("/account/confirm/")
    assert not Vote.objects.exists()
    fresh.post("/promotions/bulk/", form)
    assert Vote.objects.get().voter == dock.approver


def test_session_over_the_api_needs_it_too(dock: Any, production: Any) -> None:
    where, old = f"/api/v1/promotions/{production.pk}/approve/", with_factor(dock.approver, seconds_ago=3600)
    refused = old.post(where, {"reason": "read"}, content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (403, "step_up_required")
    fresh = with_factor(dock.approver, seconds_ago=60)
    assert fresh.post(where, {"reason": "read"}, content_type="application/json").status_code == 200


def test_passkey_signs_the_approval_and_is_the_step_up(dock: Any, production: Any) -> None:
    client, key = browser(dock.approver), with_passkey(dock.approver)
    assert sign(client, key, production)["Location"] == f"/promotions/{production.pk}/"
    vote = Vote.objects.get()
    content = check_vote(vote.signed, site="localhost")
    assert (content["voter"], content["environment"]) == ("approver", "shop/staging")
    assert content["ballots"] == [
        {
            "promotion": production.pk,
            "repository": "shop/api",
            "digest": dock.image.digest,
            "evaluation": vote.evaluation.digest,  # type: ignore[union-attr]  # it is there
        }
    ]
    event = AuditEvent.objects.get(action="promotion.approved")
    assert event.details == {"key_sha256": key_sha256(vote.signed)}
    assert state_of(production) == "ready"
    assert "signed with a passkey" in client.get(f"/promotions/{production.pk}/").content.decode()
    shown = Caller(dock.approver).get(f"promotions/{production.pk}/").json()["votes"][0]["signed"]
    assert shown == vote.signed


def test_signature_travels_in_the_promotion_record_and_is_checked_offline(dock: Any, production: Any) -> None:
    key = with_passkey(dock.approver)
    sign(browser(dock.approver), key, production)
    production.refresh_from_db()
    record = json.loads(json.dumps(_promotion(production, production.evaluations.order_by("-pk").first(), None, None)))
    trusted = {"approver": {key_sha256(Vote.objects.get().signed)}}
    digest = dock.image.digest
    assert [(row.by, row.is_signed) for row in check_record(record, digest=digest, keys=trusted)] == [
        ("approver", True)
    ]

    def problem(**changes: Any) -> str:
        changed = json.loads(json.dumps(record))
        changed["approvals"][0] |= changes.pop("approval", {})
        found = check_record(changed | changes.pop("record", {}), **({"digest": digest, "keys": trusted} | changes))
        assert [row.is_signed for row in found] == [False]
        return found[0].problem

    assert problem(approval={"by": "second"}) == "It was signed by approver."
    assert "another image" in problem(digest="sha256:" + "b" * 64)
    assert "another image" in problem(record={"promotion": 999})
    assert "another image" in problem(approval={"evaluation": "sha256:" + "0" * 64})
    assert "another environment" in problem(record={"environment": "production"})
    assert "none of approver" in problem(keys={"approver": {"0" * 64}})
    assert problem(approval={"signed": None}) == "It is not signed."


@pytest.mark.parametrize("part", ["statement", "authenticatorData", "clientDataJSON", "signature", "publicKey"])
def test_any_changed_part_breaks_a_signed_vote(dock: Any, production: Any, part: str) -> None:
    sign(browser(dock.approver), with_passkey(dock.approver), production)
    signed = dict(Vote.objects.get().signed)
    assert check_vote(signed)
    if part == "statement":
        signed[part] = signed[part].replace('"promotion":', '"promotion":1')
    else:
        middle = len(signed[part]) // 2
        signed[part] = (
            signed[part][:middle] + ("A" if signed[part][middle] != "A" else "B") + signed[part][middle + 1 :]
        )
    with pytest.raises(BadVote):
        check_vote(signed)


def test_changed_evidence_needs_another_signature(dock: Any, production: Any) -> None:
    client, key = browser(dock.approver), with_passkey(dock.approver)
    page = client.post(f"/promotions/{production.pk}/approve/", {"reason": "read"})
    assertion = json.dumps(key.get(options_in(page)))
    services.object_to(production.pk, actor=dock.second, reason="wait")  # another evaluation
    answer = client.post(f"/promotions/{production.pk}/approve/", {"reason": "read", "assertion": assertion})
    assert answer.status_code == 409
    assert "The evidence changed while you signed" in answer.content.decode()
    assert not Vote.objects.filter(value="approve").exists()
    assert sign(client, key, production).status_code == 302


def test_signature_works_once_and_only_for_its_request(dock: Any, production: Any) -> None:
    client, key = browser(dock.approver), with_passkey(dock.approver)
    page = client.post(f"/promotions/{production.pk}/approve/", {"reason": "read"})
    form = {"reason": "read", "assertion": json.dumps(key.get(options_in(page)))}
    assert client.post(f"/promotions/{production.pk}/approve/", form).status_code == 302
    client.post(f"/promotions/{production.pk}/withdraw-vote/", {"reason": ""})
    assert client.post(f"/promotions/{production.pk}/approve/", form).status_code == 400
    assert Vote.objects.get().value == "withdraw"
    assert Vote.objects.get().signed is None


def test_passkey_of_another_person_signs_nothing(dock: Any, production: Any) -> None:
    client, other = browser(dock.approver), with_passkey(dock.second)
    with_passkey(dock.approver)
    page = client.post(f"/promotions/{production.pk}/approve/", {"reason": "read"})
    form = {"reason": "read", "assertion": json.dumps(other.get(options_in(page)))}
    assert client.post(f"/promotions/{production.pk}/approve/", form).status_code == 403
    assert not Vote.objects.exists()


def test_environment_can_count_only_signed_approvals(dock: Any, request_: PromotionRequest) -> None:
    services.approve(request_.pk, actor=dock.approver, reason="read")
    assert state_of(request_) == "ready"
    change_environment(dock.staging.pk, actor=dock.owner, requires_signed_votes=True)
    services.reevaluate(request_)
    assert state_of(request_) == "open"
    row = Caller(dock.second).get(f"promotions/{request_.pk}/").json()
    summary = next(each for each in row["requirements"] if each["name"] == "approvals")["summary"]
    assert "The approval of approver does not count: it is not signed with a passkey." in summary
    refused = Caller(dock.second).post(f"promotions/{request_.pk}/approve/", {"reason": "read"})
    assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
    assert "counts only approvals that are signed with a passkey" in refused.json()["detail"]
    # The approver signs the same vote.
    assert sign(browser(dock.approver), with_passkey(dock.approver), request_).status_code == 302
    assert (Vote.objects.count(), state_of(request_)) == (1, "ready")


def test_who_has_a_passkey_can_approve_without_it_where_that_counts(dock: Any, request_: PromotionRequest) -> None:
    with_passkey(dock.approver)
    client = browser(dock.approver)
    form = {"reason": "read", "unsigned": "1"}
    assert client.post(f"/promotions/{request_.pk}/approve/", form).status_code == 302
    assert (Vote.objects.get().value, Vote.objects.get().signed) == ("approve", None)


LOWER = [
    {"is_production": False},
    {"required_approvals": 0},
    {"excludes_requester": False},
    {"approval_rules": []},
    {"requires_signed_votes": False},
]


@pytest.mark.parametrize("change", LOWER, ids=lambda change: next(iter(change)))
def test_lowering_the_protection_of_production_needs_the_factor_too(dock: Any, production: Any, change: Any) -> None:
    rule = RuleWish(name="two", required=1, people=("approver",))
    change_environment(dock.staging.pk, actor=dock.owner, requires_signed_votes=True, approval_rules=[rule])
    for proof in (RequestContext(confirmed_at=time.time()), RequestContext(strong_at=time.time(), token_lookup="x")):
        with request_context(proof), pytest.raises(StepUpRequired):
            change_environment(dock.staging.pk, actor=dock.owner, **change)
    change_environment(dock.staging.pk, actor=dock.owner, required_approvals=2)  # more needs nothing
    with request_context(RequestContext(strong_at=time.time())):
        changed = change_environment(dock.staging.pk, actor=dock.owner, **change)
    assert changed.revision == Environment.objects.get(pk=dock.staging.pk).revision
    assert AuditEvent.objects.filter(action="environment.changed").latest("pk").details["is_about_approvals"] is True


def test_token_makes_no_production_of_it_first(dock: Any, production: Any) -> None:
    refused = Caller(dock.owner).patch(f"environments/{dock.staging.pk}/", {"is_production": False})
    assert (refused.status_code, refused.json()["code"]) == (403, "step_up_required")
    assert Environment.objects.get(pk=dock.staging.pk).is_production


def test_asking_for_less_security_needs_the_factor(production: Any) -> None:
    admin = User.objects.get(username="admin")
    body = {"second_factor_for_admins": False, "second_factor_for_roles": [], "step_up_is_on": False}
    found = Caller(admin).get("security/")
    refused = Caller(admin).put("security/", body, If_Match=found["ETag"])
    assert (refused.status_code, refused.json()["code"]) == (403, "step_up_required")
    form = {"revision": str(found.json()["revision"])}
    assert with_factor(admin, seconds_ago=3600).post("/security/", form)["Location"].startswith("/account/confirm/")
    assert SecuritySettings.objects.get().step_up_is_on
    assert with_factor(admin, seconds_ago=60).post("/security/", form)["Location"] == "/security/"
    assert not SecuritySettings.objects.get().step_up_is_on


def test_weak_vote_of_before_does_not_count_in_production(dock: Any, request_: PromotionRequest) -> None:
    services.approve(request_.pk, actor=dock.approver, reason="read")
    assert state_of(request_) == "ready"
    Environment.objects.filter(pk=dock.staging.pk).update(is_production=True)
    services.reevaluate(PromotionRequest.objects.get(pk=request_.pk))
    assert state_of(request_) == "ready"  # no step-up is asked for
    turn_step_up(True)
    services.reevaluate(PromotionRequest.objects.get(pk=request_.pk))
    assert state_of(request_) == "open"
    with request_context(RequestContext(strong_at=time.time())):
        assert services.approve(request_.pk, actor=dock.approver, reason="again").state == "ready"
    assert Vote.objects.get().is_strong is True
    Vote.objects.update(is_strong=None)  # given before this was stored
    services.reevaluate(PromotionRequest.objects.get(pk=request_.pk))
    assert state_of(request_) == "ready"


@pytest.mark.parametrize(("origin", "status"), [("", 302), (":8443", 403)], ids=["own", "another port"])
def test_assertion_for_another_service_of_the_host_signs_nothing(
    dock: Any, request_: PromotionRequest, origin: str, status: int
) -> None:
    key = with_passkey(dock.approver)
    key.origin = settings.PUBLIC_URL + origin
    assert sign(browser(dock.approver), key, request_).status_code == status
    assert Vote.objects.exists() is (status == 302)
