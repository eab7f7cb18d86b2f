"""Teams, their members and the members' grants."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.models import Group, Membership, Role, Team, User
from accounts.queries import people_in
from accounts.verbs import ROLES_OF_MACHINES, Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import (
    GrantChanged,
    GrantCreated,
    GrantDetails,
    GrantExpiry,
    TeamChanged,
    TeamDeleted,
    TeamName,
)
from lifecycle.authority.grants import live_grants, over_whole_team
from lifecycle.authority.models import HeldGrant, RoleGrant, TeamUserPermission
from lifecycle.authority.projection import project_all
from lifecycle.authority.queries import teams_visible_to
from lifecycle.authority.rights import end_of_rights, grants_of, is_above_grants, require
from lifecycle.core import clock, locks
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.environments.models import ApprovalRule, Environment
from lifecycle.registry.constants import ANCHOR_PREFIX, VAULT_PREFIX

_ONE: Final = {
    "repositories": "repository",
    "environments": "environment",
    "clusters": "cluster",
    "groups": "group",
    "robots": "robot",
    "approval rules": "approval rule",
}
_GROUPS_LOCK: Final = 0x67727073  # "grps"
_NO_GRANT: Final = "Grant not found, or you don't have access."


@transaction.atomic
def create_team(*, actor: User, slug: str, name: str) -> Team:
    """Create a team. A person who creates it becomes its owner. Its repositories are those below `slug/`.

    Raises NotPermitted unless `actor` is an admin, Malformed, or Conflict when a team already has the slug. Also raises
    Conflict when the slug is the target prefix of an environment, because members could push there without approval.
    """
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can create teams. Ask an admin.")
    try:
        Team(slug=slug, name=name.strip() or slug).clean_fields()
    except ValidationError:
        raise Malformed(
            "Enter a short name of up to 60 lower-case letters and digits, with single hyphens between them."
            " The name can have up to 120 characters."
        ) from None
    if slug == VAULT_PREFIX:
        raise Conflict(f"{slug} is reserved: withdrawn images are in repositories below it. Choose another name.")
    if slug == ANCHOR_PREFIX:
        raise Conflict(f"{slug} is reserved: checkpoints of the audit log are below it. Choose another name.")
    if Environment.objects.filter(prefix=slug).exists():
        raise Conflict(f"{slug} is the target prefix of an environment. Choose another name.")
    try:
        with transaction.atomic():
            team = Team.objects.create(slug=slug, name=name.strip() or slug)
    except IntegrityError:
        raise Conflict(f"Team {slug} already exists. Choose another name.") from None
    audit.record(Action.TEAM_CREATED, actor=actor, subject=team, team=team)
    if actor.is_person:
        write_grant(team, actor, Role.objects.get(slug="owner"), actor=actor)
    return team


@transaction.atomic
def rename_team(team_id: int, *, actor: User, name: str) -> Team:
    """Change the display name of a team. Its short name is part of repository names and never changes.

    Raises NotFound, NotPermitted, Malformed.
    """
    team = _lock_team(team_id, actor)
    require(actor, Verb.TEAM_MANAGE, team=team)
    new = " ".join(name.split()) or team.slug
    if len(new) > 120 or "\0" in new:
        raise Malformed("Enter a name of up to 120 characters.")
    if new != team.name:
        before, team.name = team.name, new
        team.save(update_fields=["name"])
        details = TeamChanged(slug=team.slug, before=TeamName(before), after=TeamName(new))
        audit.record(Action.TEAM_CHANGED, actor=actor, subject=team, team=team, details=details)
    return team


def contents_of(team: Team) -> dict[str, int]:
    """Return how many objects of each kind its deletion waits for; approval rules are those that name the team."""
    return {
        "repositories": team.repositories.count(),
        "environments": Environment.objects.filter(team=team).count(),
        "clusters": team.clusters.count(),
        "groups": team.groups.count(),
        "robots": team.robots.filter(user__is_active=True).count(),
        "approval rules": ApprovalRule.objects.filter(team=team).count(),
    }


def why_not_delete_team(actor: User, team: Team) -> Reason | None:
    """Return why `actor` cannot delete a team now, None when they can."""
    if not is_above_grants(actor):
        return Reason("Only admins can delete teams. Ask an admin.")
    left = [f"{count} {name if count > 1 else _ONE[name]}" for name, count in contents_of(team).items() if count]
    if left:
        return Reason(f"The team still has {', '.join(left)}. Only an empty team can be deleted.", Conflict)
    return None


@transaction.atomic
def delete_team(team_id: int, *, actor: User) -> None:
    """Delete a team without repositories, environments and active robots, with its grants and retired robots.

    Its audit events stay; only admins can read them then. Raises NotFound, NotPermitted, Conflict.
    """
    team = _lock_team(team_id, actor)
    refuse_if(why_not_delete_team(actor, team))
    users = sorted(set(HeldGrant.objects.filter(team=team).values_list("user", flat=True)))
    count = RoleGrant.objects.filter(team=team).delete()[0]
    details = TeamDeleted(slug=team.slug, before=TeamName(team.name), grants=count)
    audit.record(Action.TEAM_DELETED, actor=actor, subject=team, details=details)
    project_all(users)
    Membership.objects.filter(team=team).delete()
    team.robots.all().delete()
    TeamUserPermission.objects.filter(content_object=team).delete()
    # Not `team.delete()`: it would set the team of its audit events to null, and no event ever changes.
    rows = Team.objects.filter(pk=team.pk)
    rows._raw_delete(rows.db)
    if users:
        events.publish(events.RightsChanged(tuple(users)))


def _lock_team(team_id: int, actor: User) -> Team:
    visible = teams_visible_to(actor).filter(pk=team_id).exists()
    team = Team.objects.select_for_update().filter(pk=team_id).first() if visible else None
    if team is None:
        raise NotFound("Team not found, or you don't have access.")
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
    """Grant a person a role on some repositories of a team, optionally in one environment. Adds the person to the team.

    If the same grant exists, only its expiry changes. Raises NotFound, NotPermitted (also for a role with verbs that
    `actor` does not have, or not for so long), Malformed, or Conflict for an expiry on the grant of the last owner.
    """
    team = lock_team(actor, team_id)
    require(actor, Verb.TEAM_MANAGE, team=team)
    user = User.objects.filter(username=username, is_active=True, kind=User.Kind.PERSON).first()
    if user is None:
        raise NotFound(f"No active account {username[:150]} found. Check the user name.")
    return grant_role(
        team,
        user,
        actor=actor,
        role=role,
        repository_pattern=repository_pattern,
        environment=environment,
        expires_at=expires_at,
    )


@transaction.atomic
def add_group(
    team_id: int,
    *,
    actor: User,
    group: str,
    role: str,
    repository_pattern: str = "*",
    environment: str = "",
    expires_at: datetime | None = None,
) -> RoleGrant:
    """Grant a group a role on some repositories of a team, as `add_member` does for a person.

    `group` is the name of a group of the installation, or `team/name` of one of this team. Raises as `add_member`.
    """
    team = lock_team(actor, team_id)
    require(actor, Verb.TEAM_MANAGE, team=team)
    lock_groups()  # nobody joins the group between the check and the grant
    owner, _, slug = group.rpartition("/")
    rows = Group.objects.select_related("team").filter(slug=slug)
    holder = rows.filter(team=team if owner == team.slug else None).first() if owner in {"", team.slug} else None
    if holder is None:
        raise NotFound(f"No group {group[:121]} found. Use the name of a group of the installation, or {team}/name.")
    return grant_role(
        team,
        holder,
        actor=actor,
        role=role,
        repository_pattern=repository_pattern,
        environment=environment,
        expires_at=expires_at,
    )


def grant_role(
    team: Team,
    holder: User | Group,
    *,
    actor: User,
    role: str,
    repository_pattern: str,
    environment: str,
    expires_at: datetime | None,
) -> RoleGrant:
    """Grant a role by its slug. The caller has locked the team and checked the permission; raises as `add_member`."""
    chosen = Role.objects.filter(slug=role).first()
    if chosen is None:
        raise NotFound(f"Role {role[:60]} not found.")
    is_robot = isinstance(holder, User) and holder.kind == User.Kind.ROBOT
    if not is_robot:
        refuse_if(why_not_for_people(chosen))
    by = Verb.ROBOT_MANAGE if is_robot else Verb.TEAM_MANAGE
    require_verbs(actor, team, chosen.verbs, until=expires_at, by=by)
    scope = None
    if environment:
        scope = Environment.objects.filter(team=team, slug=environment).first()
        if scope is None:
            raise NotFound(f"Team {team} has no environment {environment[:60]}. Check its name.")
    if expires_at is not None and expires_at <= clock.now():
        raise Malformed("The expiry date is in the past. Choose a later date.")
    return write_grant(
        team,
        holder,
        chosen,
        actor=actor,
        repository_pattern=repository_pattern,
        environment=scope,
        expires_at=expires_at,
    )


def why_not_for_people(role: Role) -> Reason | None:
    """Return why no person and no group can have the role: it is for robots only."""
    if role.is_builtin and role.slug in ROLES_OF_MACHINES:
        return Reason(f"Role {role} is for robots only. Choose another role.", Malformed)
    return None


def require_verbs(
    actor: User, team: Team, verbs: list[str], *, until: datetime | None, by: Verb = Verb.TEAM_MANAGE
) -> None:
    """Raise NotPermitted unless `actor` has all of `verbs` on the whole team `until` then, or is an admin.

    `until` is the end of what is given, None for no end. So nobody makes what they have for some days last longer, for
    themselves, for others, through a group or a robot. `by`, the right to give it, has to last as long.
    """
    if is_above_grants(actor):
        return
    beyond = [verb for verb in verbs if not any(grants_of(actor, Verb(verb), team_id=team.pk, family=None))]
    if beyond:
        raise NotPermitted(
            f"You can only grant permissions that you have. You do not have: {', '.join(sorted(beyond))}."
        )
    end = end_of_rights(actor, [*verbs, by.value], team_id=team.pk)
    if end is not None and (until is None or until > end):
        raise NotPermitted(
            f"You have these permissions until {end:%Y-%m-%d %H:%M} UTC. Choose an end that is not later."
        )


def write_grant(
    team: Team,
    holder: User | Group,
    role: Role,
    *,
    actor: User,
    repository_pattern: str = "*",
    environment: Environment | None = None,
    expires_at: datetime | None = None,
    provider: str = "",
) -> RoleGrant:
    """Create the grant, or set the expiry of an existing one; raises Malformed for an invalid pattern, or Conflict."""
    user, group = (holder, None) if isinstance(holder, User) else (None, holder)
    checked_grant = RoleGrant(
        team=team, user=user, group=group, role=role, repository_pattern=repository_pattern, environment=environment
    )
    try:
        checked_grant.clean_fields(exclude=("user", "group", "granted_by", "expires_at"))
    except ValidationError:
        raise Malformed(
            f"{repository_pattern[:80]} is not a valid repository pattern. Use shop/api, shop/* or *."
        ) from None
    if user is not None:
        Membership.objects.get_or_create(team=team, user=user)
    grant, is_new = RoleGrant.objects.get_or_create(
        team=team,
        user=user,
        group=group,
        role=role,
        repository_pattern=repository_pattern,
        environment=environment,
        defaults={"granted_by": actor, "expires_at": expires_at, "provider": provider},
    )
    scope = {"user": grant.holder, "role": role.slug, "repositories": repository_pattern}
    if is_new:
        audit.record(
            Action.GRANT_CREATED, actor=actor, subject=grant, team=team, environment=environment,
            details=GrantCreated(**scope, expires_at=_text(expires_at)),
        )  # fmt: skip
    elif grant.expires_at != expires_at:
        if expires_at is not None:
            _refuse_last_owner(grant)
        before, grant.expires_at, grant.granted_by = grant.expires_at, expires_at, actor
        grant.save(update_fields=["expires_at", "granted_by"])
        audit.record(
            Action.GRANT_CHANGED, actor=actor, subject=grant, team=team, environment=environment,
            details=GrantChanged(
                **scope, before=GrantExpiry(_text(before)), after=GrantExpiry(_text(expires_at))
            ),
        )  # fmt: skip
    note_rights_changed(grant)
    return grant


def note_rights_changed(grant: RoleGrant) -> None:
    """Project everybody who has the grant, and say that their rights changed; also for a grant just deleted."""
    if grant.user_id is not None:
        users = [grant.user_id]
    else:
        users = sorted(people_in([grant.group_id or 0]).values_list("pk", flat=True))
    project_all(users)
    if users:
        events.publish(events.RightsChanged(tuple(users)))


def _text(moment: datetime | None) -> str:
    return moment.isoformat(timespec="seconds") if moment else "never"


@transaction.atomic
def revoke_grant(grant_id: int, *, actor: User, team_id: int | None = None) -> None:
    """Revoke a grant; with `team_id`, only a grant of that team. The change takes effect immediately.

    Raises NotFound, NotPermitted, or Conflict for the last owner of a team.
    """
    rows = RoleGrant.objects.select_related("team", "role", "user", "group__team", "environment").filter(pk=grant_id)
    grant = (rows.filter(team=team_id) if team_id is not None else rows).first()
    if grant is None:
        raise NotFound(_NO_GRANT)
    try:
        team = lock_team(actor, grant.team_id)
    except NotFound:
        raise NotFound(_NO_GRANT) from None
    require(actor, verb_to_revoke(grant), team=team)
    _refuse_last_owner(grant)
    end_grant(grant, actor=actor)


def verb_to_revoke(grant: RoleGrant) -> Verb:
    """Return the verb that is needed to revoke a grant."""
    is_robot = grant.user is not None and grant.user.kind == User.Kind.ROBOT
    return Verb.ROBOT_MANAGE if is_robot else Verb.TEAM_MANAGE


def end_grant(grant: RoleGrant, *, actor: User) -> None:
    """Delete a grant and record it, in the caller's transaction, which has locked the team and checked the right."""
    team = grant.team
    audit.record(
        Action.GRANT_REVOKED, actor=actor, subject=grant, team=team, environment=grant.environment,
        details=GrantDetails(
            user=grant.holder, role=grant.role.slug, repositories=grant.repository_pattern
        ),
    )  # fmt: skip
    user = grant.user
    RoleGrant.objects.filter(pk=grant.pk).delete()
    if user is not None and not RoleGrant.objects.filter(team=team, user=user).exists():
        Membership.objects.filter(team=team, user=user).delete()
    note_rights_changed(grant)


def _refuse_last_owner(grant: RoleGrant) -> None:
    # A grant on some repositories, in one environment or with an expiry does not count: it cannot keep the whole team.
    # Nor does that of a group: its members can leave elsewhere, at the provider of their sign-in, and nobody could
    # refuse that. So the lock of the team is enough, and no race of groups can take the last owner away.
    # Nor does that of a robot, which stops with whoever is responsible for it.
    owners = live_grants().filter(
        over_whole_team(), group=None, team=grant.team, role__slug="owner", expires_at=None,
        user__kind=User.Kind.PERSON,
    )  # fmt: skip
    if owners.filter(pk=grant.pk).exists() and not owners.exclude(pk=grant.pk).exists():
        raise Conflict(
            f"{grant.user} is the last owner of {grant.team} in person. Grant the owner role to another user first."
            " Owners through a group do not count, because their groups can change elsewhere."
        )


def lock_team(actor: User, team_id: int) -> Team:
    """Return the locked team if `actor` can see it; raises NotFound."""
    team = teams_visible_to(actor).filter(pk=team_id).first()
    if team is None:
        raise NotFound("Team not found, or you don't have access.")
    return Team.objects.select_for_update().get(pk=team.pk)


def lock_groups() -> None:
    """Let one transaction at a time change who is in which group, and what groups hold; until its end.

    Taken after the lock of a team, never before.
    """
    locks.wait_for(_GROUPS_LOCK)
