"""Rule sets and waivers by name or id: check that the actor can see them, and lock."""

from __future__ import annotations

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.access import environment_for, team_for
from lifecycle.authority.rights import is_above_grants, may
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason
from lifecycle.policies.models import ExternalCheck, Waiver
from lifecycle.policies.queries import checks_visible_to, waivers_visible_to
from lifecycle.policies.types import SITE, Scope

_UNKNOWN = "Rule set not found, or you don't have access."


def scope_for(actor: User, name: str) -> Scope:
    """Return the scope `site`, `team:<team>` or `team:<team>:<environment>` if `actor` can see it; raises NotFound."""
    kind, _, rest = name.partition(":")
    team, _, environment = rest.partition(":")
    if name == SITE:
        return Scope()
    if kind != "team" or not team:
        raise NotFound(_UNKNOWN)
    if not environment:
        return Scope(team_for(actor, team))
    row = environment_for(actor, team=team, slug=environment)
    return Scope(row.team, row)


def why_not_manage(actor: User, scope: Scope) -> Reason | None:
    """Return why `actor` cannot save the rules of a scope. The rules of the site are for admins."""
    if scope.team is None:
        return None if is_above_grants(actor) else Reason("Only admins can change the rules of the site. Ask an admin.")
    decision = may(actor, Verb.POLICY_MANAGE, team=scope.team, environment=scope.environment)
    return None if decision else Reason(decision.reason)


def waiver_for(actor: User, waiver_id: int, *, locked: bool = False) -> Waiver:
    """Return a waiver that `actor` can see, perhaps locked; raises NotFound."""
    rows = waivers_visible_to(actor).filter(pk=waiver_id)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("Waiver not found, or you don't have access.")
    return row


def check_for(actor: User, check_id: int, *, locked: bool = False) -> ExternalCheck:
    """Return an external check that `actor` can see, perhaps locked; raises NotFound."""
    rows = checks_visible_to(actor).filter(pk=check_id)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("External check not found, or you don't have access.")
    return row
