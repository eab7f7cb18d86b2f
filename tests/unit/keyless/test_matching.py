"""Which claims make a rule, and which tokens satisfy it."""

from __future__ import annotations

import pytest

from lifecycle.keyless.matching import checks_of, why_not_claims


@pytest.mark.parametrize(
    "claims",
    [
        {"repository": "acme/shop"},
        {"repository": "acme/*", "ref": "refs/heads/*"},
        {"project_path": "acme/tools/*", "ref_protected": "true"},
        {"sub": "repo:acme/shop:*"},
        {"sub": "repo:acme/*"},
        {"sub": "project_path:acme/shop:ref_type:branch:ref:*"},
        {"sub": "system:serviceaccount:ci:*"},
        {"sub": "anything exact"},
        {"kubernetes.io/namespace": "ci"},
        {"repository_owner_id": "12", "environment": "prod*"},
    ],
)
def test_rule_that_names_an_owner_can_be_kept(claims: dict[str, str]) -> None:
    assert why_not_claims(claims) == ""


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"ref": "refs/heads/main"},
        {"repository": "*"},
        {"repository": "**"},
        {"repository": "*/shop"},
        {"repository": "a*/shop"},
        {"repository": "acme*"},
        {"repository": "acme"},
        {"repository": "acme/"},
        {"repository": "/shop"},
        {"project_path": "*/shop"},
        {"repository_owner": "acme*"},
        {"kubernetes.io/namespace": "c*"},
        {"sub": "*"},
        {"sub": "repo:*"},
        {"sub": "repo:*/shop:ref:refs/heads/main"},
        {"sub": "repo:acme*"},
        {"sub": "project_path:*/shop"},
        {"sub": "system:serviceaccount:*:builder"},
        {"sub": "https://jenkins.example.com/job/*"},
        {"repository": "acme/shop", "ref": "*"},
        {"repository": "acme/shop", "ref": ""},
        {"repository": " acme/shop"},
        {"repository": "acme/shop", "re f": "x"},
        {"repository": "acme/shop\n"},
        {"repository": "acme/" + "x" * 300},
        {"repository": "acme/shop"} | {f"claim{number}": "x" for number in range(10)},
    ],
)
def test_rule_that_leaves_the_owner_open_is_refused(claims: dict[str, str]) -> None:
    assert why_not_claims(claims)


@pytest.mark.parametrize(
    ("claims", "holds"),
    [
        ({"repository": "acme/shop"}, True),
        ({"repository": "acme/shop", "other": 1}, True),
        ({"repository": "acme/shopping"}, False),
        ({"repository": "ACME/shop"}, False),
        ({"repository": ""}, False),
        ({"repository": None}, False),
        ({"repository": ["acme/shop"]}, False),
        ({"repository": {"acme": "shop"}}, False),
        ({}, False),
    ],
)
def test_claim_matches_exactly_and_an_empty_one_never(claims: dict[str, object], holds: bool) -> None:
    assert checks_of({"repository": "acme/shop"}, claims)[0].holds is holds


def test_nested_claims_numbers_and_booleans_are_read() -> None:
    claims = {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "builder"}}, "n": 7, "b": True}
    wanted = {"kubernetes.io/namespace": "ci", "kubernetes.io/serviceaccount/name": "bui*", "n": "7", "b": "true"}
    assert all(check.holds for check in checks_of(wanted, claims))
    assert not any(check.holds for check in checks_of(wanted, {"kubernetes.io": "ci", "n": 7.0, "b": "yes"}))


@pytest.mark.parametrize(
    ("verified", "holds"), [(True, True), ("true", True), (False, False), (None, False), (1, False)]
)
def test_mail_counts_only_if_its_issuer_verified_it(verified: object, holds: bool) -> None:
    claims = {"email": "ci@acme.example", "email_verified": verified}
    (check,) = checks_of({"email": "ci@acme.example"}, claims)
    assert (check.holds, "not verified" in str(check.found)) == (holds, not holds)
