"""Reads of rule sets and waivers that several callers share."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

import orjson
from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.queries import covered, teams_visible_to
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.policies.models import ExternalCheck, Policy, PolicyRevision, Waiver
from lifecycle.policies.types import Effective, RuleSet, Scope
from lifecycle.policy.images import WaiverFact
from lifecycle.policy.rulesets import Rule, combined, rules_of
from lifecycle.registry.models import Repository

NO_RULES = "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"  # of the empty list, "[]"


def scope_of(policy: Policy) -> Scope:
    """Return the scope of a stored rule set."""
    if policy.environment is not None:
        return Scope(policy.environment.team, policy.environment)
    return Scope(policy.team)


def revision_of(scope: Scope, number: int | None = None) -> PolicyRevision | None:
    """Return the newest revision of a scope, or the one with this number; None when there is none."""
    team = None if scope.environment else scope.team
    rows = PolicyRevision.objects.filter(policy__team=team, policy__environment=scope.environment)
    rows = rows.select_related("author", "policy__team", "policy__environment__team")
    return (rows.filter(number=number) if number is not None else rows.order_by("-number")).first()


def rule_set_of(scope: Scope, number: int | None = None) -> RuleSet:
    """Return the rules of a scope; without a revision, revision 0 without rules."""
    row = revision_of(scope, number)
    if row is None:
        return RuleSet(scope, 0, NO_RULES, ())
    return RuleSet(scope, row.number, row.digest, rules_of(row.rules, origin=scope.words), tuple(row.cases))


def rule_sets(scopes: Iterable[Scope]) -> dict[Scope, RuleSet]:
    """Return the rule set of each of these scopes, with one query for any number."""
    wanted = list(dict.fromkeys(scopes))
    teams = [scope.team.pk for scope in wanted if scope.team]
    environments = [scope.environment.pk for scope in wanted if scope.environment]
    with connection.cursor() as cursor:
        cursor.execute(_NEWEST, [teams, environments])
        stored = {(row[0], row[1]): row[2:] for row in cursor.fetchall()}
    found = {}
    for scope in wanted:
        team_id = None if scope.environment or scope.team is None else scope.team.pk
        row = stored.get((team_id, scope.environment.pk if scope.environment else None))
        if row is None:
            found[scope] = RuleSet(scope, 0, NO_RULES, ())
        else:
            number, digest, rules, cases = row
            found[scope] = RuleSet(scope, number, digest, _parsed(rules, scope.words), tuple(orjson.loads(cases)))
    return found


_NEWEST: Final = """
SELECT DISTINCT ON (revision.policy_id)
       policy.team_id, policy.environment_id, revision.number, revision.digest, revision.rules, revision.cases
FROM lifecycle_policyrevision revision JOIN lifecycle_policy policy ON policy.id = revision.policy_id
WHERE (policy.team_id IS NULL AND policy.environment_id IS NULL)
   OR policy.team_id = ANY(%s) OR policy.environment_id = ANY(%s)
ORDER BY revision.policy_id, revision.number DESC
"""


@lru_cache(maxsize=1000)
def _parsed(rules: str, origin: str) -> tuple[Rule, ...]:
    """Return the rules in a stored text. A rule set is judged for every image, and changes rarely."""
    return rules_of(orjson.loads(rules), origin=origin)


def effective_rules(team: Team, environment: Environment | None) -> Effective:
    """Return the rules that apply to images of `team` in `environment`."""
    lowest = Scope(team, environment)
    scopes = [*lowest.above, lowest]
    sets = rule_sets(scopes)
    return combine([sets[scope] for scope in scopes])


def rules_of_environments(environments: Iterable[Environment]) -> dict[int, tuple[Rule, ...]]:
    """Return {environment id: the rules that apply there}. One query; the environments have their team."""
    scopes = {environment.pk: Scope(environment.team, environment) for environment in environments}
    sets = rule_sets(scope for lowest in scopes.values() for scope in (*lowest.above, lowest)) if scopes else {}
    return {pk: combine([sets[each] for each in (*lowest.above, lowest)]).rules for pk, lowest in scopes.items()}


def combine(sets: Iterable[RuleSet]) -> Effective:
    """Return the rules of these sets, the highest first, combined as the strictest."""
    levels = list(sets)
    revisions = tuple((level.scope.name, level.number, level.digest) for level in levels if level.number)
    return Effective(combined([level.rules for level in levels]), revisions)


def revisions_visible_to(actor: User) -> QuerySet[PolicyRevision]:
    """Return all revisions of the rule sets that `actor` can see: of the site, and of the teams that they see."""
    teams = teams_visible_to(actor)
    is_visible = Q(policy__team=None, policy__environment=None)
    is_visible |= Q(policy__team__in=teams) | Q(policy__environment__team__in=teams)
    rows = PolicyRevision.objects.filter(is_visible)
    return rows.select_related("author", "policy__team", "policy__environment__team")


def newest(revisions: QuerySet[PolicyRevision]) -> QuerySet[PolicyRevision]:
    """Return only the newest revision of each rule set."""
    later = PolicyRevision.objects.filter(policy=OuterRef("policy"), number__gt=OuterRef("number"))
    return revisions.filter(~Exists(later))


def waivers_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[Waiver]:
    """Return the waivers on whose repository and environment `actor` has `verb`. A waiver for all needs it for all."""
    rows = Waiver.objects.select_related("team", "repository", "environment", "requested_by", "decided_by")
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return rows
    is_covered = covered(actor, verb, team="team", family="repository__family", environment="environment")
    if verb == Verb.IMAGE_VIEW:
        return rows.filter(is_covered | Q(repository=None, team__in=teams_visible_to(actor)))
    return rows.filter(is_covered)


def waivers_in_inbox(actor: User) -> QuerySet[Waiver]:
    """Return the waivers that `actor` can decide about, and their own that end within 14 days."""
    soon = clock.now() + timedelta(days=14)
    to_decide = waivers_visible_to(actor, Verb.WAIVER_APPROVE).filter(state=Waiver.State.REQUESTED)
    to_decide = to_decide.exclude(requested_by=actor) if actor.is_person else Waiver.objects.none()
    own = Q(requested_by=actor, state=Waiver.State.APPROVED, until__lt=soon)
    return waivers_visible_to(actor).filter(Q(pk__in=to_decide.values("pk")) | own)


def waivers_for(
    team_id: int, *, repository_ids: Collection[int], environment_id: int | None, moment: datetime | None = None
) -> list[Waiver]:
    """Return the approved waivers that can cover images of these source repositories in an environment now."""
    rows = Waiver.objects.filter(team=team_id, state=Waiver.State.APPROVED, until__gt=moment or clock.now())
    rows = rows.filter(Q(repository=None) | Q(repository__in=repository_ids))
    return list(rows.filter(Q(environment=None) | Q(environment=environment_id)).order_by("pk"))


def approved_waivers(team_ids: Collection[int]) -> QuerySet[Waiver]:
    """Return all waivers of these teams that count now."""
    rows = Waiver.objects.filter(team__in=team_ids, state=Waiver.State.APPROVED, until__gt=clock.now())
    return rows.order_by("pk")


def facts_of_waivers(rows: Iterable[Waiver], repository: Repository, digests: Collection[str]) -> list[WaiverFact]:
    """Return the waivers that cover the image of these digests (its own, and its platforms') in a source repository."""
    return [
        WaiverFact(str(row), row.rule, row.until, row.advisory, row.package)
        for row in rows
        if row.repository_id in {None, repository.pk} and (not row.digest or row.digest in digests)
    ]


def checks_visible_to(actor: User) -> QuerySet[ExternalCheck]:
    """Return the external checks of the site, and of the teams that `actor` can see. Their addresses are not shown."""
    rows = ExternalCheck.objects.filter(Q(team=None) | Q(team__in=teams_visible_to(actor)))
    return rows.select_related("team", "created_by")
