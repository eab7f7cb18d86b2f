"""Approval rules of environments: who is in the group of each, and whether enough people are left for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from django.db.models import QuerySet

from accounts.models import Membership, User
from accounts.verbs import Verb
from lifecycle.authority.grants import applies_in, live_grants
from lifecycle.authority.identity import one_account_each
from lifecycle.core.patterns import matches
from lifecycle.environments.models import ApprovalRule, Environment
from lifecycle.policy.quorum import Rule, quorum, with_rest


def rules_of(environment: Environment, people: Mapping[int, str], *, family: str | None = None) -> list[Rule]:
    """Return the approval rules of an environment, each with those of `people` ({id: user name}) who are in its group.

    A role counts where its grant covers `family`; without a family, anywhere in the environment.
    """
    rows = list(environment.approval_rules.prefetch_related("people"))
    if not rows:
        return []
    return [Rule(row.name, row.required, names) for row, names in zip(rows, _groups(rows, people, family), strict=True)]


def _groups(rows: Sequence[ApprovalRule], people: Mapping[int, str], family: str | None) -> list[frozenset[str]]:
    environment = rows[0].environment
    by_role: defaultdict[int, set[int]] = defaultdict(set)
    by_team: defaultdict[int, set[int]] = defaultdict(set)
    in_roles = live_grants().filter(applies_in(environment), team=environment.team_id, user__in=people)
    for role, user, pattern in in_roles.values_list("role", "user", "repository_pattern"):
        if family is None or matches(pattern, family):
            by_role[role].add(user)
    teams = [row.team_id for row in rows if row.team_id]
    members = Membership.objects.filter(team__in=teams, user__in=people).values_list("team", "user")
    granted = live_grants().filter(team__in=teams, user__in=people).values_list("team", "user")
    for team, user in [*members, *granted]:
        by_team[team].add(user)
    groups = [
        by_role[row.role_id]
        if row.role_id
        else by_team[row.team_id]
        if row.team_id
        else {one.pk for one in row.people.all()}
        for row in rows
    ]
    return [frozenset(people[pk] for pk in group if pk in people) for group in groups]


def why_not_satisfiable(environment: Environment) -> str:
    """Return why no request to the environment can ever be approved, as one sentence; "" when one can.

    Reads the stored settings and the rights of now. Who is excluded from one request is judged with that request.
    """
    grants = live_grants(verb=Verb.PROMOTION_APPROVE).filter(applies_in(environment), team=environment.team_id)
    approvers = User.objects.filter(
        pk__in=grants.values("user"), is_active=True, kind=User.Kind.PERSON, secret_seen_by=None
    )
    people = _one_account_each(approvers)
    rules = with_rest(rules_of(environment, people), environment.required_approvals, set(people.values()))
    for rule in rules:
        if len(rule.people) < rule.required:
            has = {0: "no user", 1: "only 1 user"}.get(len(rule.people), f"only {len(rule.people)} users")
            return f"{rule.name} needs {rule.required}, and {has} can approve there."
    if not quorum(rules, [], list(people.values())).is_possible:
        needed = sum(rule.required for rule in rules)
        return f"All rules together need {needed} different people, and too few can approve there."
    return ""


def _one_account_each(people: QuerySet[User]) -> dict[int, str]:
    """Return {id: user name}, where accounts that count as one person have the name of the first."""
    return {pk: first.username for pk, first in one_account_each(list(people)).items()}
