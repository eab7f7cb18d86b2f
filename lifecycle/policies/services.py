"""Actions on rule sets. Each function checks, locks, changes and audits in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from django.db import transaction

from accounts.models import User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import PolicySaved
from lifecycle.core.errors import Malformed, PolicyBlocked, StaleVersion
from lifecycle.core.reasons import refuse_if
from lifecycle.core.types import Digest
from lifecycle.policies.access import why_not_manage
from lifecycle.policies.models import Policy, PolicyRevision
from lifecycle.policies.queries import combine, rule_set_of, rule_sets
from lifecycle.policies.types import RuleSet, Scope
from lifecycle.policy.cases import cases_of
from lifecycle.policy.rulesets import Rule, new_above_observe, rules_of, why_looser

NOTE_MAX = 2000


def draft_of(scope: Scope, rules: Any, cases: Any = ()) -> RuleSet:
    """Return a rule set that is not stored, checked as `save_policy` checks it, but for new rules that decide.

    Raises Malformed for a wrong rule, and PolicyBlocked with the reasons when it is looser than a set above it.
    """
    found = rules_of(rules, origin=scope.words)
    above = combine(rule_sets(scope.above).values()).rules
    if reasons := why_looser(found, above):
        raise PolicyBlocked("A lower rule set can only be stricter.", reasons=reasons)
    return RuleSet(scope, -1, _digest(found), found, tuple(case.as_json() for case in cases_of(list(cases))))


@transaction.atomic
def save_policy(
    scope: Scope, rules: Any, *, actor: User, seen: int, note: str = "", cases: Any = ()
) -> PolicyRevision | None:
    """Store the rules as the next revision of a scope; return None when nothing changed.

    `seen` is the number of the revision that the author changed. Raises NotPermitted; StaleVersion when somebody else
    saved one since; Malformed for a wrong rule; PolicyBlocked when the set is looser than one above it, or when a new
    rule does not start in observe.
    """
    refuse_if(why_not_manage(actor, scope))
    if len(note) > NOTE_MAX:
        raise Malformed(f"The note has at most {NOTE_MAX} characters.")
    policy = _lock(scope)
    current = rule_set_of(scope)
    if current.number != seen:
        raise StaleVersion(
            f"Somebody else saved revision {current.number} of {scope.words}. You changed revision {seen}."
            " Load it again and repeat your change."
        )
    draft = draft_of(scope, rules, cases)
    if new := new_above_observe(draft.rules, current.rules):
        raise PolicyBlocked(
            "New rules start in observe.",
            reasons=[
                f"{key} is new. Save it in observe, look at what it would have blocked, then raise it." for key in new
            ],
        )
    if draft.digest == current.digest and draft.cases == current.cases and current.number:
        return None
    revision = PolicyRevision.objects.create(
        policy=policy,
        number=current.number + 1,
        rules=[rule.as_json() for rule in draft.rules],
        cases=list(draft.cases),
        note=note.strip(),
        author=actor,
        digest=draft.digest,
    )
    audit.record(
        Action.POLICY_SAVED, actor=actor, subject=policy, team=scope.team, environment=scope.environment,
        reason=revision.note,
        details=PolicySaved(scope=scope.name, revision=revision.number, digest=revision.digest,
                            changes=tuple(_changes(current.rules, draft.rules))),
    )  # fmt: skip
    events.publish(
        events.PolicyChanged(scope.team.pk if scope.team else None, scope.environment.pk if scope.environment else None)
    )
    return revision


def _lock(scope: Scope) -> Policy:
    team = None if scope.environment else scope.team
    Policy.objects.get_or_create(team=team, environment=scope.environment)
    return Policy.objects.select_for_update(of=("self",)).get(team=team, environment=scope.environment)


def _digest(rules: Sequence[Rule]) -> str:
    content = orjson.dumps([rule.as_json() for rule in rules], option=orjson.OPT_SORT_KEYS)
    return Digest.of(content).text


def _changes(before: Sequence[Rule], after: Sequence[Rule]) -> list[str]:
    """Return one entry for each rule that was added, removed or changed: "+ sbom", "- sbom", "sbom"."""
    old, new = {rule.key: rule for rule in before}, {rule.key: rule for rule in after}
    added = [f"+ {key}" for key in new if key not in old]
    removed = [f"- {key}" for key in old if key not in new]
    changed = [key for key in new if key in old and new[key].as_json() != old[key].as_json()]
    return [*added, *removed, *changed]
