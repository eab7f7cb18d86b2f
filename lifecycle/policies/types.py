"""Names of rule sets: `site`, `team:shop`, `team:shop:production`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accounts.models import Team
from lifecycle.environments.models import Environment
from lifecycle.policy.rulesets import Rule

SITE = "site"


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a rule set applies: everywhere, in a team, or in one environment."""

    team: Team | None = None  # of the environment too
    environment: Environment | None = None

    @property
    def name(self) -> str:
        if self.team is None:
            return SITE
        place = f":{self.environment.slug}" if self.environment else ""
        return f"team:{self.team.slug}{place}"

    @property
    def words(self) -> str:
        """The scope for people: "production of shop"."""
        if self.team is None:
            return "the site"
        return f"{self.environment.slug} of {self.team.slug}" if self.environment else f"team {self.team.slug}"

    @property
    def above(self) -> tuple[Scope, ...]:
        """The scopes above this one, the highest first."""
        if self.team is None:
            return ()
        return (Scope(), Scope(self.team)) if self.environment else (Scope(),)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one scope as they are stored now. Revision 0 has no rules: nobody saved any yet."""

    scope: Scope
    number: int
    digest: str
    rules: tuple[Rule, ...]
    cases: tuple[Any, ...] = ()

    @property
    def etag(self) -> str:
        return f'"{self.scope.name}.{self.number}"'


@dataclass(frozen=True, slots=True)
class Effective:
    """The rules that apply in a place, combined from all levels, and the revisions that they are from."""

    rules: tuple[Rule, ...]
    revisions: tuple[tuple[str, int, str], ...]  # (scope, number, digest), only saved ones
