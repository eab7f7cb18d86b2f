"""Look up trusted sources by the ids and names in a request."""

from __future__ import annotations

from collections.abc import Iterable

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.queries import teams_visible_to
from lifecycle.authority.rights import may
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.trust.models import TrustedSource
from lifecycle.trust.queries import sources_visible_to

_NOT_FOUND = "Trusted source not found, or you don't have access."


def source_for(actor: User, source_id: int) -> TrustedSource:
    """Return the source if `actor` can see it; raises NotFound."""
    source = sources_visible_to(actor).filter(pk=source_id).first()
    if source is None:
        raise NotFound(_NOT_FOUND)
    return source


def lock_source(actor: User, source_id: int) -> TrustedSource:
    """Return the source, locked, if `actor` may change it; raises NotFound, NotPermitted."""
    source_for(actor, source_id)
    source = TrustedSource.objects.select_for_update(of=("self",)).get(pk=source_id)
    refuse_if(why_not_manage(actor, source.is_site_wide, source.teams.all()))
    return source


def teams_called(actor: User, slugs: Iterable[str]) -> list[Team]:
    """Return the teams of these slugs, all of which `actor` must see; raises NotFound."""
    wanted = set(slugs)
    teams = list(teams_visible_to(actor).filter(slug__in=wanted).order_by("slug"))
    if len(teams) != len(wanted):
        raise NotFound("Team not found, or you don't have access.")
    return teams


def why_not_manage(actor: User, is_site_wide: bool, teams: Iterable[Team]) -> Reason | None:
    """Return why `actor` cannot manage a source for these teams; None when they can.

    An admin can manage every source. Others need policy.manage in each of its teams, and never manage a site-wide one.
    """
    if actor.is_active and actor.is_superuser:
        return None
    if is_site_wide:
        return Reason("Only an admin can manage a source for all teams. Ask an admin, or make one for your team.")
    rows = list(teams)
    if not rows:
        return Reason("Only an admin can manage a source without teams.")
    for team in rows:
        decision = may(actor, Verb.POLICY_MANAGE, team=team)
        if not decision:
            return Reason(decision.reason)
    return None
