"""Remedies by the key in a request: what the actor can see of them, in which team, and who may act there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.authority.rights import may
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.core.reasons import Reason
from lifecycle.remedies.models import Remedy

_KEY: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a remedy that concerns one team: one of its rows, and the ids of the team's repositories."""

    team: Team
    remedy: Remedy
    repository_ids: frozenset[int]
    has_fix: bool  # a version or a newer image closes it, in some image of the team
    is_exploited: bool  # it closes something that is known to be exploited


def share_for(actor: User, key: str, team: str = "") -> Share:
    """Return the part of a remedy in one team (slug); without `team`, in the only one that `actor` sees.

    Raises NotFound, and Malformed when several teams have images with it.
    """
    if not _KEY.fullmatch(key):
        raise NotFound("This remedy is not needed any more, or you cannot see its images.")
    seen = Remedy.objects.filter(key=key, repository__in=repositories_visible_to(actor)).exclude(subject="")
    rows = list(seen.select_related("repository__team").order_by("repository__team__slug", "pk"))
    slugs = sorted({row.repository.team.slug for row in rows})
    if not rows or (team and team not in slugs):
        raise NotFound("This remedy is not needed any more, or you cannot see its images.")
    if not team and len(slugs) > 1:
        raise Malformed(f"Several teams have images with it. Name one: {', '.join(slugs)}.", field="team")
    row = next(row for row in rows if not team or row.repository.team.slug == team)
    own = Remedy.objects.filter(subject=row.subject, repository__team=row.repository.team)
    found = list(own.values_list("repository_id", "kind", "exploited"))
    return Share(
        row.repository.team,
        row,
        frozenset(pk for pk, _, _ in found),
        any(kind not in {Remedy.Kind.NONE, Remedy.Kind.WAIT} for _, kind, _ in found),
        any(exploited for _, _, exploited in found),
    )


def why_not_manage(actor: User, share: Share) -> Reason | None:
    """Return why `actor` cannot assign or snooze a remedy: it needs runtime.manage on each repository it concerns."""
    if may(actor, Verb.RUNTIME_MANAGE, team=share.team):
        return None
    rows = repositories_visible_to(actor, Verb.RUNTIME_MANAGE).filter(pk__in=share.repository_ids)
    if rows.count() == len(share.repository_ids):
        return None
    return Reason(
        f"You need runtime.manage in team {share.team.slug}, or on all its repositories with this remedy. Ask an owner"
        " to grant it."
    )
