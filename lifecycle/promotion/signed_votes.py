"""Approvals that their voters sign with a passkey, and the fresh second factor that production can need.

The voter signs a statement about the evaluation that they saw. The service judges again when the vote arrives: if the
evidence changed meanwhile, the signature is about something else, and the voter looks again.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit.details_of_promotion import VoteApproved
from lifecycle.authority import proofs
from lifecycle.authority.second_factors import rp_id, use_passkey
from lifecycle.authority.services.security import security_now, why_no_fresh_factor
from lifecycle.core.errors import Conflict, NotPermitted
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.environments.models import Environment
from lifecycle.promotion.access import lock_alone
from lifecycle.promotion.evaluating import evaluate
from lifecycle.promotion.models import Evaluation, PromotionRequest, Vote
from lifecycle.promotion.refusals import why_not_cast
from lifecycle.signatures.assertions import BadAssertion
from lifecycle.signatures.votes import Ballot, challenge_of, key_sha256, signed_vote, statement_of


@dataclass(frozen=True, slots=True)
class Signature:
    """What a browser sent: the statement that the server made, and the response of the passkey."""

    statement: bytes
    response: Any


def why_not_unsigned(environment: Environment) -> Reason | None:
    """Return why an approval without a signature does not count in the environment."""
    if not environment.requires_signed_votes:
        return None
    return Reason(
        f"{environment.slug} counts only approvals that are signed with a passkey. Add a passkey on your account page,"
        " then approve in the browser."
    )


def why_no_step_up(actor: User, environment: Environment, what: str = "Approving into production") -> Reason | None:
    """Return why an act of production needs a fresh proof with a second factor first; None if it does not, or had one.

    It reads the setting and the clock in the transaction of the act.
    """
    if not environment.is_production or not security_now().step_up_is_on:
        return None
    return why_no_fresh_factor(actor, what)


def is_strong(signed: Signed | None) -> bool:
    """Return whether a vote of now is given with a second factor: a signature, or a proof of the last minutes."""
    return signed is not None or proofs.was_confirmed(strongly=True, within_s=proofs.STEP_UP_S)


def adds_proof(vote: Vote, signed: Signed | None) -> bool:
    """Return whether voting again proves more than `vote` did: it is signed now, or given with a second factor."""
    return (signed is not None and not vote.signed) or (vote.is_strong is False and is_strong(signed))


@transaction.atomic
def prepare(promotion_id: int, *, actor: User) -> bytes:
    """Return the statement that `actor` signs to approve a request, about its evaluation of now.

    Raises what the vote itself would raise.
    """
    request = lock_alone(actor, promotion_id, Verb.PROMOTION_APPROVE)
    return statement(actor, [request])


def statement(actor: User, requests: Sequence[PromotionRequest]) -> bytes:
    """Return the statement about locked requests of one environment. Raises what the vote would raise."""
    ballots = []
    for request in requests:
        refuse_if(why_not_cast(actor, request), state=request.state)
        _, evaluation = evaluate(request)
        ballots.append(_ballot(request, evaluation))
    environment = requests[0].environment
    return statement_of(
        site=rp_id(),
        voter=actor.username,
        environment=f"{environment.team.slug}/{environment.slug}",
        ballots=ballots,
        nonce=secrets.token_urlsafe(32),
    )


def _ballot(request: PromotionRequest, evaluation: Evaluation) -> Ballot:
    return Ballot(request.pk, request.repository.name, request.image.digest, evaluation.digest)


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified signature: what is stored with each vote, and the ballots that it covers."""

    document: dict[str, str]
    ballots: tuple[Ballot, ...]

    def require(self, request: PromotionRequest, evaluation: Evaluation) -> None:
        """Raise Conflict unless this request with this evaluation was signed."""
        if _ballot(request, evaluation) not in self.ballots:
            raise Conflict("The evidence changed while you signed. Look at it again, then sign again.")


def verified(actor: User, signature: Signature) -> Signed:
    """Return the signature, if a passkey of `actor` signed the statement just now. Raises NotPermitted.

    The server kept the statement: only the response of the passkey comes from the browser.
    """
    try:
        passkey, assertion = use_passkey(actor, signature.response, challenge=challenge_of(signature.statement))
    except BadAssertion as error:
        raise NotPermitted(f"The passkey was not accepted: {error} Try again.") from error
    document = signed_vote(signature.statement, assertion, bytes(passkey.credential_id))
    rows = json.loads(signature.statement)["ballots"]
    return Signed(document, tuple(Ballot(**row) for row in rows))


def approval_details(signed: Signed | None) -> VoteApproved:
    """Return the details of the audit event: with which key the approval was signed."""
    return VoteApproved(key_sha256=key_sha256(signed.document) if signed is not None else "")
