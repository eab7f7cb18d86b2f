"""What a person or a robot has now, grant by grant: where each comes from, and what of it does not count."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from accounts.models import Robot, User
from accounts.verbs import Verb
from lifecycle.authority.access import person_for
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.grants import live_grants
from lifecycle.authority.queries import repositories_open_to, repositories_visible_to, teams_visible_to
from lifecycle.authority.rights import lacking_for, makers_of, why_suspended
from lifecycle.core.errors import NotFound


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs in one place, and where they come from. `withheld` are those that a robot does not have after all."""

    team: str  # short name; "" for every team
    repositories: str  # pattern, or a phrase
    environment: str  # short name; "" for all
    verbs: tuple[str, ...]
    withheld: tuple[str, ...]
    origin: str  # "role owner, granted by kim", "admin"
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Effective:
    """The rights of one account that a reader can see. `nothing` says why it has none at all, "" otherwise."""

    username: str
    kind: str
    nothing: str
    rights: tuple[Right, ...]


def principal_for(actor: User, username: str) -> User:
    """Return the person or robot with this name if `actor` can see it; raises NotFound with one message for all."""
    user = User.objects.filter(username=username, kind__in=(User.Kind.PERSON, User.Kind.ROBOT)).first()
    if user is not None and user.kind == User.Kind.PERSON:
        try:
            return person_for(actor, user.pk)
        except NotFound:
            user = None
    if user is None or not Robot.objects.filter(user=user, team__in=teams_visible_to(actor)).exists():
        raise NotFound("Account not found, or you don't have access.")
    return user


def effective_rights(user: User, *, reader: User) -> Effective:
    """Return what `user` has now, in the teams that `reader` can see; of oneself, everything."""
    nothing = "The account is deactivated." if not user.is_active else why_suspended(user)
    if nothing:
        return Effective(user.username, user.kind, nothing, ())
    rights: list[Right] = []
    if user.is_superuser:
        verbs = tuple(sorted(verb.value for verb in ADMIN_VERBS))
        rights.append(Right("", "all repositories", "", verbs, (), "admin of the installation"))
    grants = live_grants(user).select_related("role", "team", "environment", "granted_by").order_by("team__slug", "pk")
    if reader.pk != user.pk:
        grants = grants.filter(team__in=teams_visible_to(reader))
    makers = makers_of(user)
    for grant in grants:
        withheld = sorted({verb for maker in makers for verb in lacking_for(maker, [grant])})
        by = f", granted by {grant.granted_by}" if grant.granted_by is not None else ""
        origin: str = getattr(grant, "origin", "")  # of a grant through a group
        through = f", {origin}" if origin else ""
        rights.append(
            Right(
                grant.team.slug,
                grant.repository_pattern,
                grant.environment.slug if grant.environment is not None else "",
                tuple(sorted(set(grant.role.verbs) - set(withheld))),
                tuple(withheld),
                f"role {grant.role.slug}{through}{by}",
                grant.expires_at,
            )
        )
    count = repositories_open_to(user).exclude(pk__in=repositories_visible_to(user).values("pk")).count()
    if count:
        words = f"{count} internal or public {'repository' if count == 1 else 'repositories'}"
        rights.append(Right("", words, "", (Verb.IMAGE_VIEW.value,), (), "open to every account"))
    return Effective(user.username, user.kind, "", tuple(rights))
