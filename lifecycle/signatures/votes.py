"""Votes that people signed with a passkey: what is signed, and how anybody can check it later.

A signed approval is a WebAuthn assertion. Its challenge is the SHA-256 of a statement: canonical JSON that names who
approves which digest of which repository into which environment, and the digest of the evaluation that they saw. So a
hijacked server can neither invent an approval nor move one to another image.

It needs the standard library, `cryptography` and the file `assertions.py` beside it, and no Django. A separate program
calls `check_record(record, keys=...)` with the predicate of a promotion record (the in-toto attestation of type
https://gravingdock.dev/attestation/promotion/v1), and with the keys that it trusts for each person: the `key_sha256` of
the events `second_factor.added` in the sealed audit log. Without `keys`, a signature shows only that whoever held the
key in the record approved, not that the key was that of the person.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.signatures.assertions import Assertion, BadAssertion, verify

VOTE: Final = "https://gravingdock.dev/vote/v1"
_FIELDS: Final = ("authenticatorData", "clientDataJSON", "credentialId", "publicKey", "signature", "statement")


class BadVote(ValueError):
    """A signed vote does not prove what it should; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """One promotion that a vote approves. A release set has one for each member."""

    promotion: int
    repository: str
    digest: str  # of the image: sha256:...
    evaluation: str  # digest of the evaluation that the voter saw: sha256:...


def statement_of(*, site: str, voter: str, environment: str, ballots: Sequence[Ballot], nonce: str) -> bytes:
    """Return the canonical bytes of an approval: JSON, ASCII, keys sorted, no spaces, ballots by their promotion.

    `site` is the host that passkeys belong to, `environment` is `team/environment`, and `nonce` is random, so that no
    statement is signed twice.
    """
    rows = [
        {"digest": row.digest, "evaluation": row.evaluation, "promotion": row.promotion, "repository": row.repository}
        for row in sorted(ballots, key=lambda row: row.promotion)
    ]
    content = {
        "ballots": rows, "decision": "approve", "environment": environment, "nonce": nonce, "site": site, "type": VOTE,
        "voter": voter,
    }  # fmt: skip
    return _canonical(content)


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def challenge_of(statement: bytes) -> bytes:
    """Return the 32 bytes that the passkey signs for a statement."""
    return hashlib.sha256(statement).digest()


def signed_vote(statement: bytes, assertion: Assertion, credential_id: bytes) -> dict[str, str]:
    """Return a signed vote as it is stored and travels: the statement as text, everything else in base64url."""
    return {
        "statement": statement.decode("ascii"),
        "credentialId": _text(credential_id),
        "publicKey": _text(assertion.public_key),
        "authenticatorData": _text(assertion.authenticator_data),
        "clientDataJSON": _text(assertion.client_data_json),
        "signature": _text(assertion.signature),
    }


def key_sha256(signed: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the public key (SubjectPublicKeyInfo in DER) of a signed vote, in hexadecimal."""
    return hashlib.sha256(_bytes(signed, "publicKey")).hexdigest()


def check_vote(signed: Mapping[str, Any], *, site: str | None = None) -> dict[str, Any]:
    """Return the statement of a signed vote, if its signature is right and its form canonical. Raises BadVote.

    With `site`, the passkey must belong to this host; else to the host that the statement names.
    """
    if sorted(signed) != sorted(_FIELDS) or not isinstance(signed["statement"], str):
        raise BadVote("The signed vote lacks a part.")
    text: str = signed["statement"]
    try:
        content = json.loads(text)
        canonical = _canonical(content)
    except ValueError as error:
        raise BadVote("The statement is not JSON.") from error
    if not isinstance(content, dict) or canonical != text.encode():
        raise BadVote("The statement is not in its canonical form.")
    if content.get("type") != VOTE or content.get("decision") != "approve" or not content.get("ballots"):
        raise BadVote("The statement is no approval.")
    if site is not None and content.get("site") != site:
        raise BadVote("The statement is of another site.")
    assertion = Assertion(
        *(_bytes(signed, name) for name in ("publicKey", "authenticatorData", "clientDataJSON", "signature"))
    )
    try:
        verify(assertion, challenge=challenge_of(canonical), rp_id=str(content.get("site")))
    except BadAssertion as error:
        raise BadVote(str(error)) from error
    return content


@dataclass(frozen=True, slots=True)
class CheckedApproval:
    """One approval of a promotion record: whether its person signed it, and what is wrong if not."""

    by: str
    is_signed: bool
    problem: str = ""


def check_record(
    record: Mapping[str, Any],
    *,
    digest: str,
    keys: Mapping[str, Collection[str]] | None = None,
    site: str | None = None,
) -> list[CheckedApproval]:
    """Return the approvals of a promotion record, each checked against the record and the image with `digest`.

    `keys` are the trusted keys of each person: SHA-256 of the SubjectPublicKeyInfo in hexadecimal.
    """
    return [_check_approval(record, approval, digest, keys, site) for approval in record.get("approvals", ())]


def _check_approval(
    record: Mapping[str, Any],
    approval: Mapping[str, Any],
    digest: str,
    keys: Mapping[str, Collection[str]] | None,
    site: str | None,
) -> CheckedApproval:
    by = str(approval.get("by"))
    signed = approval.get("signed")
    if not isinstance(signed, Mapping):
        return CheckedApproval(by, False, "It is not signed.")
    try:
        content = check_vote(signed, site=site)
        if content["voter"] != by:
            raise BadVote(f"It was signed by {content['voter']}.")
        if not str(content["environment"]).endswith(f"/{record.get('environment')}"):
            raise BadVote("It was signed for another environment.")
        wanted = {
            "promotion": record.get("promotion"), "repository": record.get("repository"), "digest": digest,
            "evaluation": approval.get("evaluation"),
        }  # fmt: skip
        if wanted not in content["ballots"]:
            raise BadVote("It was signed for another image, or on other evidence.")
        if keys is not None and key_sha256(signed) not in keys.get(by, ()):
            raise BadVote(f"The key is none of {by}.")
    except (BadVote, KeyError, TypeError) as error:
        return CheckedApproval(by, False, str(error))
    return CheckedApproval(by, True)


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _bytes(signed: Mapping[str, Any], name: str) -> bytes:
    text = signed.get(name)
    try:
        if not isinstance(text, str):
            raise BadVote(f"The signed vote has no {name}.")
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise BadVote(f"{name} is not base64url.") from error
