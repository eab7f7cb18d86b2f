"""Teams, members, grants and tokens: what changes who may do what. Each act is audited in its own transaction."""

from __future__ import annotations

from datetime import datetime

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts import tokens
from accounts.models import ApiToken, Membership, Role, Team, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.authority.access import grants_of, require
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.projection import project
from lifecycle.authority.queries import teams_visible_to
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.promotion.models import Environment


@transaction.atomic
def create_team(*, actor: User, slug: str, name: str) -> Team:
    """Make a team whose owner is `actor`; its repositories are those below `slug/`.

    Raises NotPermitted for who is no admin, Malformed, or Conflict when the slug is taken by a team or by the target
    prefix of an environment: its members could push past every approval.
    """
    if not (actor.is_superuser or actor.kind == User.Kind.SYSTEM):
        raise NotPermitted("Only an admin makes teams; ask one.")
    try:
        Team(slug=slug, name=name.strip() or slug).clean_fields()
    except ValidationError:
        raise Malformed("A team's short name has lower-case letters, digits and single hyphens between them.") from None
    if Environment.objects.filter(prefix=slug).exists():
        raise Conflict(f"{slug} is the target prefix of an environment; choose another name.")
    try:
        with transaction.atomic():
            team = Team.objects.create(slug=slug, name=name.strip() or slug)
    except IntegrityError:
        raise Conflict(f"There is a team {slug} already.") from None
    audit.record("team.created", actor=actor, subject=team, team=team)
    if actor.is_person:
        _grant(team, actor, Role.objects.get(slug="owner"), actor=actor)
    return team


@transaction.atomic
def add_member(
    team_id: int,
    *,
    actor: User,
    username: str,
    role: str,
    repository_pattern: str = "*",
    environment: str = "",
    expires_at: datetime | None = None,
) -> RoleGrant:
    """Let a person into a team with a role over some of its repositories, maybe in one environment only.

    Raises NotFound, NotPermitted (also for a role that can more than `actor` can), or Malformed.
    """
    team = _lock_team(actor, team_id)
    require(actor, Verb.TEAM_MANAGE, team=team)
    user = User.objects.filter(username=username, is_active=True, kind=User.Kind.PERSON).first()
    if user is None:
        raise NotFound(f"There is no active account {username}.")
    chosen = Role.objects.filter(slug=role).first()
    if chosen is None:
        raise NotFound(f"There is no role {role}.")
    if not actor.is_superuser and actor.kind != User.Kind.SYSTEM:
        beyond = [verb for verb in chosen.verbs if not any(grants_of(actor, Verb(verb), team_id=team.pk, family=None))]
        if beyond:
            raise NotPermitted(f"You cannot give what you do not hold: {', '.join(sorted(beyond))}.")
    place = None
    if environment:
        place = Environment.objects.filter(team=team, slug=environment).first()
        if place is None:
            raise NotFound(f"Team {team} has no environment {environment}.")
    return _grant(
        team, user, chosen, actor=actor, repository_pattern=repository_pattern, environment=place, expires_at=expires_at
    )


def _grant(
    team: Team,
    user: User,
    role: Role,
    *,
    actor: User,
    repository_pattern: str = "*",
    environment: Environment | None = None,
    expires_at: datetime | None = None,
) -> RoleGrant:
    Membership.objects.get_or_create(team=team, user=user)
    grant, is_new = RoleGrant.objects.get_or_create(
        team=team,
        user=user,
        role=role,
        repository_pattern=repository_pattern,
        environment=environment,
        defaults={"granted_by": actor, "expires_at": expires_at},
    )
    if is_new:
        audit.record(
            "grant.created", actor=actor, subject=grant, team=team, environment=environment, user=user.username,
            role=role.slug, repositories=repository_pattern,
        )  # fmt: skip
    project(user)
    return grant


@transaction.atomic
def revoke_grant(grant_id: int, *, actor: User) -> None:
    """Take a grant back; the next request of that user is judged without it.

    Raises NotFound, NotPermitted, or Conflict for the last owner of a team.
    """
    grant = RoleGrant.objects.select_related("team", "role", "user").filter(pk=grant_id).first()
    if grant is None:
        raise NotFound("No such grant.")
    team = _lock_team(actor, grant.team_id)
    require(actor, Verb.TEAM_MANAGE, team=team)
    # An owner of some repositories, or of one environment, cannot manage the team.
    owners = RoleGrant.objects.filter(
        RoleGrant.live(), team=team, role__slug="owner", user__is_active=True, repository_pattern="*", environment=None
    )
    if owners.filter(pk=grant.pk).exists() and not owners.exclude(pk=grant.pk).exists():
        raise Conflict(f"{grant.user} is the last owner of {team}; make somebody else an owner first.")
    audit.record(
        "grant.revoked", actor=actor, subject=grant, team=team, user=grant.user.username, role=grant.role.slug,
        repositories=grant.repository_pattern,
    )  # fmt: skip
    user = grant.user
    grant.delete()
    if not RoleGrant.objects.filter(team=team, user=user).exists():
        Membership.objects.filter(team=team, user=user).delete()
    project(user)


def _lock_team(actor: User, team_id: int) -> Team:
    """Return the team, locked, if `actor` may see it; raises NotFound."""
    team = teams_visible_to(actor).filter(pk=team_id).first()
    if team is None:
        raise NotFound("No such team.")
    return Team.objects.select_for_update().get(pk=team.pk)


@transaction.atomic
def create_api_token(user: User, *, actor: User, name: str, days: float = tokens.DEFAULT_DAYS) -> str:
    """Make a token of `user` and return its text, which is shown once. Only for oneself, or by Gravingdock itself."""
    if actor.pk != user.pk and actor.kind != User.Kind.SYSTEM:
        raise NotPermitted("A token is made by the one it belongs to.")
    if not user.is_active or user.kind == User.Kind.SYSTEM:
        raise NotPermitted("This account holds no tokens.")
    if not 0 < days <= 366:
        raise Malformed("A token lives for 1 to 366 days.")
    kind = ApiToken.Kind.ROBOT if user.kind == User.Kind.ROBOT else ApiToken.Kind.PERSONAL
    row, text = tokens.create_token(user, kind=kind, name=name, days=days)
    audit.record("token.created", actor=actor, subject=row, user=user.username, lookup=row.lookup, days=days)
    return text


@transaction.atomic
def revoke_api_token(token_id: int, *, actor: User) -> None:
    """End one of one's own tokens now; raises NotFound."""
    row = ApiToken.objects.filter(pk=token_id, user=actor, revoked_at=None).first()
    if row is None:
        raise NotFound("No such token.")
    tokens.revoke(row)
    audit.record("token.revoked", actor=actor, subject=row, lookup=row.lookup)
