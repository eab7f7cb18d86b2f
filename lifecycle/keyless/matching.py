"""Whether a rule is safe to keep, and whether the claims of a token satisfy it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from lifecycle.core.patterns import matches
from lifecycle.keyless.constants import CLAIMS_MAX, EXACT, PATTERN_MAX, SUBJECT, WITH_PATH
from lifecycle.keyless.types import Check

_CLAIM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}(/[A-Za-z0-9_.:-]{1,100}){0,2}")
# What stands before the first star: GitHub's and GitLab's owner, or the namespace of a Kubernetes service account.
_SUBJECT_WITH_OWNER: Final = re.compile(
    r"repo:[^/:]+/.*|project_path:[^/:]+/.*|organization:[^/:]+:.*|system:serviceaccount:[^:]+:.*", re.DOTALL
)


def why_not_claims(claims: Mapping[str, str]) -> str:
    """Return why these patterns must not become a rule, as one sentence; "" if they can.

    A rule must say whose jobs it trusts: everybody can have a repository at a public issuer.
    """
    if not claims:
        return "Name at least one claim, for example repository."
    if len(claims) > CLAIMS_MAX:
        return f"Name at most {CLAIMS_MAX} claims."
    for name, pattern in claims.items():
        if why := _why_not_pattern(name, pattern) or _why_owner_is_open(name, pattern):
            return why
    if not any(name in claims for name in (*WITH_PATH, *EXACT, SUBJECT)):
        return "Name a claim that says whose jobs they are: repository, project_path, kubernetes.io/namespace or sub."
    return ""


def _why_not_pattern(name: str, pattern: str) -> str:
    if not _CLAIM.fullmatch(name):
        return f"{name[:60]} is not the name of a claim."
    if not pattern or len(pattern) > PATTERN_MAX or not pattern.isprintable() or pattern != pattern.strip():
        return f"The value of {name} must have 1 to {PATTERN_MAX} characters, without spaces around it."
    if not pattern.strip("*"):
        return f"A star alone says nothing about {name}. Leave the claim out, or name a value."
    return ""


def _why_owner_is_open(name: str, pattern: str) -> str:
    """Return why a pattern leaves open whose jobs it trusts; "" if it does not."""
    if name in EXACT and "*" in pattern:
        return f"{name} cannot contain a star: it says whose jobs they are."
    if name in WITH_PATH:
        owner, slash, rest = pattern.partition("/")
        if not slash or not owner or not rest or "*" in owner:
            return f"{name} must begin with an owner without a star, for example acme/shop or acme/*."
    if name == SUBJECT and "*" in pattern and not _SUBJECT_WITH_OWNER.fullmatch(pattern.partition("*")[0]):
        return "A star in sub must come after the owner, for example repo:acme/shop:* or system:serviceaccount:shop:*."
    return ""


def checks_of(wanted: Mapping[str, str], claims: Mapping[str, Any]) -> tuple[Check, ...]:
    """Return what the token says of each claim that a rule asks for. An absent or empty claim never holds.

    A mail holds only if the issuer says that it verified it: at some, people choose their mail themselves.
    """
    found = []
    for name, pattern in sorted(wanted.items()):
        value = _value(claims, name)
        holds = value is not None and matches(pattern, value)
        if name == "email" and value is not None and str(claims.get("email_verified")) not in {"True", "true"}:
            value, holds = f"{value}, not verified by the issuer", False
        found.append(Check(name, pattern, value, holds))
    return tuple(found)


def _value(claims: Mapping[str, Any], name: str) -> str | None:
    """Return a claim as text. `kubernetes.io/namespace` is the member `namespace` of the claim `kubernetes.io`."""
    value: Any = claims.get(name)
    if value is None:
        value = claims
        for part in name.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) and value else None
