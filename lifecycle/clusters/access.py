"""Clusters by the names in a request: check that the actor can see them, and what they may do with them."""

from __future__ import annotations

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.rights import may, require
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.queries import clusters_visible_to
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason


def cluster_for(actor: User, slug: str, *, verb: Verb | None = None, locked: bool = False) -> Cluster:
    """Return a cluster that `actor` can see, perhaps locked; raises NotFound, or NotPermitted without `verb`."""
    rows = clusters_visible_to(actor).filter(slug=slug)
    row = (rows.select_for_update(of=("self",)) if locked else rows).first()
    if row is None:
        raise NotFound("Cluster not found, or you don't have access.")
    if verb is not None:
        require(actor, verb, team=row.team)
    return row


def why_not_manage(actor: User, team: Team) -> Reason | None:
    """Return why `actor` cannot set up or change clusters of a team."""
    decision = may(actor, Verb.ENVIRONMENT_MANAGE, team=team)
    return None if decision else Reason(decision.reason)
