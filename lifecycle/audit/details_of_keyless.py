"""The details of audit events about trust rules, and tokens that CI jobs get by them."""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.audit.details import Details


@dataclass(frozen=True, slots=True)
class TrustRuleDetails(Details):
    """A trust rule: its robot, name, issuer and audience, and its claims as `claim=pattern`, sorted."""

    user: str
    rule: str
    issuer: str
    audience: str
    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenExchanged(Details):
    """A token from an identity token: robot, first characters, rule, issuer and subject of the job (300 characters)."""

    user: str
    lookup: str
    rule: str
    issuer: str
    subject: str
