"""Moving repositories to another team. Their names stay: only who owns them changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.db import transaction

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import RepositoriesMoved, RepositoryMoved
from lifecycle.authority.access import team_for
from lifecycle.authority.grants import live_grants
from lifecycle.authority.projection import project
from lifecycle.authority.rights import require
from lifecycle.core.errors import Conflict, NotFound
from lifecycle.core.providers import Question
from lifecycle.registry.models import Repository

NAMES_MAX: Final = 1000  # repositories in one move
_SHOWN: Final = 5

# The answer is {repository id: phrases}: what must end or be turned off before the repository can move.
blocks_move: Final[Question[[Collection[int]], Mapping[int, list[str]]]] = Question(
    "which processes need these repositories in their team?"
)


@dataclass(frozen=True, slots=True)
class Moving:
    """A repository of a team that can move or not, and what stands on it."""

    repository: Repository
    obstacles: Sequence[str]  # each a phrase; empty when it can move


def what_moves(team: Team, names: Sequence[str] = ()) -> list[Moving]:
    """Return the repositories of a team that are called `names` (all without names), by name, with their obstacles.

    Repositories of environments are not among them: they belong to their environment. Raises NotFound for a name that
    the team does not have, or Conflict for more than NAMES_MAX repositories.
    """
    rows = Repository.objects.filter(team=team, source=None).order_by("name", "pk")
    found = list((rows.filter(name__in=names) if names else rows)[: NAMES_MAX + 1])
    if len(found) > NAMES_MAX:
        raise Conflict(f"Move at most {NAMES_MAX} repositories at once. Name some of them.")
    missing = sorted(set(names) - {row.name for row in found})
    if missing:
        raise NotFound(f"Team {team} has no repository {missing[0][:255]}.")
    ids = [row.pk for row in found]
    held: dict[int | None, list[str]] = defaultdict(list)
    targets = Repository.objects.filter(source__in=ids).order_by("environment__position")
    for source_id, slug in targets.values_list("source_id", "environment__slug"):
        held[source_id].append(slug)
    needed = blocks_move.ask(ids)
    return [
        Moving(
            row,
            [
                *([f"promoted to {', '.join(held[row.pk])}, which stays with the team"] if row.pk in held else []),
                *needed.get(row.pk, []),
            ],
        )
        for row in found
    ]


@transaction.atomic
def move_repositories(team_id: int, *, actor: User, to: str, names: Sequence[str] = ()) -> list[Repository]:
    """Move repositories called `names` (all without names) to the team `to`, all or none; return them.

    Roles of the old team no longer apply to them, and those of the new team do at once. Images, tags, metadata, recipes
    and watches stay with their repository. Needs team.manage on both teams. Raises NotFound, NotPermitted, or Conflict,
    which names what stands on them.
    """
    pair = sorted({team_id, team_for(actor, to).pk})
    locked = {row.pk: row for row in Team.objects.select_for_update().filter(pk__in=pair).order_by("pk")}
    old, new = locked.get(team_id), next((row for row in locked.values() if row.slug == to), None)
    if old is None or new is None:
        raise NotFound("Team not found, or you don't have access.")
    for team in (old, new):
        require(actor, Verb.TEAM_MANAGE, team=team)
    if old == new:
        raise Conflict(f"The repositories already belong to {new}. Choose another team.")
    moving = what_moves(old, names)
    if not moving:
        raise Conflict(f"Team {old} has no repositories to move.")
    obstacles = [f"{one.repository}: {phrase}" for one in moving for phrase in one.obstacles]
    if obstacles:
        more = f"; and {len(obstacles) - _SHOWN} more" if len(obstacles) > _SHOWN else ""
        raise Conflict(f"These repositories cannot move now. {'; '.join(obstacles[:_SHOWN])}{more}.")
    repositories = [one.repository for one in moving]
    vaults = Repository.objects.filter(registry__is_managed=True, team=old, environment=None)  # see Repository.is_vault
    vaults = vaults.filter(family__in=[row.name for row in repositories])
    ids = [*(row.pk for row in repositories), *vaults.values_list("pk", flat=True)]
    Repository.objects.filter(pk__in=ids).update(team=new)
    details = RepositoriesMoved(to_team=new.slug, repositories=tuple(row.name for row in repositories))
    audit.record(Action.TEAM_REPOSITORIES_MOVED, actor=actor, subject=old, team=old, details=details)
    for repository in repositories:
        repository.team = new
        audit.record(
            Action.REPOSITORY_MOVED, actor=actor, subject=repository, team=new, repository=repository,
            details=RepositoryMoved(before=old.slug, after=new.slug),
        )  # fmt: skip
    users = list(User.objects.filter(pk__in=live_grants().filter(team__in=pair).values("user")).order_by("pk"))
    for user in users:
        project(user)
    events.publish(events.RightsChanged(tuple(user.pk for user in users)))
    return repositories
