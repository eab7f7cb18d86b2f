"""Rule sets and waivers for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from accounts.models import Team, User
from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.policies import services, waivers
from lifecycle.policies.models import PolicyRevision, Waiver
from lifecycle.policies.queries import rule_set_of
from lifecycle.policies.types import Scope

ENFORCE = {"request": "enforce", "execution": "enforce"}


def rule(key: str = "r", kind: str = "findings", *, modes: dict[str, str] | None = None, **parameters: Any) -> dict:
    return {"key": key, "kind": kind, "parameters": parameters, "modes": modes or {}}


def save(scope: Scope, *rules: dict, actor: User | None = None) -> PolicyRevision | None:
    """Save rules as their owner does: new ones in observe first, then with the modes that they ask for."""
    by, current = actor or system_user(), rule_set_of(scope)
    known = {item.key for item in current.rules}
    if any(item["key"] not in known and set(item["modes"].values()) & {"warn", "enforce"} for item in rules):
        observed = [item if item["key"] in known else item | {"modes": {}} for item in rules]
        services.save_policy(scope, observed, actor=by, seen=current.number)
        current = rule_set_of(scope)
    return services.save_policy(scope, list(rules), actor=by, seen=current.number)


def waiver(team: Team, key: str, *, by: User, approver: User | None = None, days: int = 7, **scope: Any) -> Waiver:
    """Request a waiver, and approve it when there is an approver."""
    made = waivers.request_waiver(
        team, key, actor=by, reason="because", ticket="OPS-1", until=clock.now() + timedelta(days=days), **scope
    )
    return waivers.approve_waiver(made.pk, actor=approver) if approver else made


def place(environment: Environment) -> Scope:
    return Scope(environment.team, environment)
