"""Groups of people, and who is in them. A group holds roles as a person does; `teams.add_group` grants them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.models import Group, GroupMember, Team, User
from accounts.queries import people_in
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_groups import (
    GroupChanged,
    GroupCreated,
    GroupDeleted,
    GroupMemberDetails,
    GroupName,
)
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.projection import project_all
from lifecycle.authority.queries import groups_visible_to
from lifecycle.authority.rights import is_above_grants, may
from lifecycle.authority.services.teams import end_grant, lock_groups, lock_team, require_verbs
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.core.reasons import Reason, refuse_if

_NO_GROUP: Final = "Group not found, or you don't have access."
_NAME_MAX: Final = 120  # characters


def why_not_manage(actor: User, group: Group) -> Reason | None:
    """Return why `actor` cannot rename or delete a group, and change its members; None if they can."""
    if group.team is None:
        return None if is_above_grants(actor) else Reason("Only admins can manage groups of the installation.")
    decision = may(actor, Verb.TEAM_MANAGE, team=group.team)
    return None if decision else Reason(decision.reason)


def why_not_change_members(actor: User, group: Group) -> Reason | None:
    """Return why `actor` cannot add and remove members by hand; None if they can."""
    if refused := why_not_manage(actor, group):
        return refused
    if group.source == Group.Source.SSO:
        return Reason("The members of this group come from sign-in. Change them at the provider.", Conflict)
    return None


@transaction.atomic
def create_group(*, actor: User, slug: str, name: str = "", team: str = "", source: str = Group.Source.MANUAL) -> Group:
    """Create a group without members: of the team `team` (its short name), or of the installation for "".

    Raises NotFound, NotPermitted (groups of the installation, and those with members from sign-in, are for admins),
    Malformed, or Conflict for a used name.
    """
    owner = None
    if team:
        owner = lock_team(actor, Team.objects.filter(slug=team).values_list("pk", flat=True).first() or 0)
    group = Group(slug=slug, name=name.strip() or slug, team=owner, source=source)
    refuse_if(why_not_manage(actor, group))
    if source == Group.Source.SSO and not is_above_grants(actor):
        raise NotPermitted("Only admins can create groups with members from sign-in. Ask an admin.")
    try:
        group.clean_fields(exclude=("team",))
    except ValidationError:
        raise Malformed(
            "Enter a short name of up to 60 lower-case letters and digits, with single hyphens between them."
            " The name can have up to 120 characters."
        ) from None
    try:
        with transaction.atomic():
            group.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"Group {group} already exists. Choose another name.") from None
    details = GroupCreated(group=str(group), source=source, after=GroupName(group.name))
    audit.record(Action.GROUP_CREATED, actor=actor, subject=group, team=owner, details=details)
    return group


@transaction.atomic
def rename_group(group_id: int, *, actor: User, name: str) -> Group:
    """Change the display name of a group. Raises NotFound, NotPermitted, Malformed."""
    group = _lock(group_id, actor)
    refuse_if(why_not_manage(actor, group))
    new = " ".join(name.split()) or group.slug
    if len(new) > _NAME_MAX or not new.isprintable():
        raise Malformed(f"Enter a name of up to {_NAME_MAX} characters.")
    if new != group.name:
        before, group.name = group.name, new
        group.save(update_fields=["name"])
        details = GroupChanged(group=str(group), before=GroupName(before), after=GroupName(new))
        audit.record(Action.GROUP_CHANGED, actor=actor, subject=group, team=group.team, details=details)
    return group


@transaction.atomic
def delete_group(group_id: int, *, actor: User) -> None:
    """Delete a group with its grants. Its members lose them at once. Raises NotFound, NotPermitted."""
    group = _lock(group_id, actor)
    refuse_if(why_not_manage(actor, group))
    people = sorted(people_in([group.pk]).values_list("pk", flat=True))
    grants = RoleGrant.objects.filter(group=group).select_related("team", "role", "group__team", "environment")
    ended = list(grants.order_by("pk"))
    for grant in ended:
        end_grant(grant, actor=actor)
    details = GroupDeleted(group=str(group), members=len(people), grants=len(ended))
    audit.record(Action.GROUP_DELETED, actor=actor, subject=group, team=group.team, details=details)
    group.delete()
    _rights_changed(people)  # also the roles of groups that contained it


@transaction.atomic
def add_to_group(group_id: int, *, actor: User, username: str = "", group: str = "") -> GroupMember:
    """Add a person (by user name), or another group (by its name, `devs` or `shop/devs`), to a group.

    The new members get every role that the group has, directly and through groups that contain it. Raises NotFound,
    NotPermitted (also for a role with verbs that `actor` does not have), Malformed, or Conflict for a member, and for
    groups deeper than one level.
    """
    into = _lock(group_id, actor)
    refuse_if(why_not_change_members(actor, into))
    if bool(username) == bool(group):
        raise Malformed("Name one person or one group.")
    require_roles(actor, into)
    if username:
        user = User.objects.filter(username=username, is_active=True, kind=User.Kind.PERSON).first()
        if user is None:
            raise NotFound(f"No active account {username[:150]} found. Check the user name.")
        return add_person(into, user, actor=actor)
    inner = _named(group, actor)
    refuse_if(why_not_nest(into, inner))
    member, is_new = GroupMember.objects.get_or_create(group=into, member=inner, defaults={"added_by": actor})
    if not is_new:
        raise Conflict(f"Group {inner} is already in group {into}.")
    _record(Action.GROUP_MEMBER_ADDED, member, actor)
    _rights_changed(people_in([inner.pk]).values_list("pk", flat=True))
    return member


def add_person(group: Group, user: User, *, actor: User, provider: str = "") -> GroupMember:
    """Add a person to a locked group and record it. The caller has checked the right. Raises Conflict for a member.

    `provider` is the slug of the provider whose claims give the membership.
    """
    member, is_new = GroupMember.objects.get_or_create(
        group=group, user=user, defaults={"added_by": actor, "provider": provider}
    )
    if not is_new:
        raise Conflict(f"{user} is already in group {group}.")
    _record(Action.GROUP_MEMBER_ADDED, member, actor)
    _rights_changed([user.pk])
    return member


def why_not_nest(into: Group, inner: Group) -> Reason | None:
    """Return why the group `inner` cannot become a member of `into`; None if it can."""
    if into.pk == inner.pk:
        return Reason("A group cannot contain itself.", Conflict)
    if inner.team_id not in {None, into.team_id}:
        return Reason(f"Group {into} can only contain groups of the installation and of its own team.", Conflict)
    if GroupMember.objects.filter(member=into).exists():
        return Reason(
            f"Group {into} is in another group, so it cannot contain groups: one level is the limit.", Conflict
        )
    if GroupMember.objects.filter(group=inner, member__isnull=False).exists():
        return Reason(f"Group {inner} contains groups, so no group can contain it: one level is the limit.", Conflict)
    return None


@transaction.atomic
def remove_from_group(group_id: int, member_id: int, *, actor: User) -> None:
    """Remove a member from a group; its people lose the roles of the group at once. Raises NotFound, NotPermitted."""
    group = _lock(group_id, actor)
    refuse_if(why_not_change_members(actor, group))
    member = group.members.select_related("user", "member__team", "group__team").filter(pk=member_id).first()
    if member is None:
        raise NotFound("Member not found, or you don't have access.")
    remove_member(member, actor=actor)


def remove_member(member: GroupMember, *, actor: User) -> None:
    """Remove a member and record it, in the caller's transaction, which has locked the groups and checked the right."""
    people = [member.user_id] if member.user_id else people_in([member.member_id or 0]).values_list("pk", flat=True)
    changed = [pk for pk in people if pk is not None]
    _record(Action.GROUP_MEMBER_REMOVED, member, actor)
    GroupMember.objects.filter(pk=member.pk).delete()
    _rights_changed(changed)


def require_roles(actor: User, group: Group) -> None:
    """Raise NotPermitted unless `actor` has every verb that members of `group` get, for as long, or is an admin."""
    holders = [group.pk, *GroupMember.objects.filter(member=group).values_list("group", flat=True)]
    for grant in RoleGrant.objects.filter(group__in=holders).select_related("team", "role").order_by("pk"):
        require_verbs(actor, grant.team, grant.role.verbs, until=grant.expires_at)


def _record(action: Action, member: GroupMember, actor: User) -> None:
    group = member.group
    details = GroupMemberDetails(
        group=str(group),
        user=member.user.username if member.user is not None else "",
        member=str(member.member) if member.member is not None else "",
        source=member.provider or group.source,
    )
    audit.record(action, actor=actor, subject=group, team=group.team, details=details)


def _rights_changed(user_ids: Collection[int]) -> None:
    users = sorted(set(user_ids))
    project_all(users)
    if users:
        events.publish(events.RightsChanged(tuple(users)))


def _lock(group_id: int, actor: User) -> Group:
    lock_groups()
    group = groups_visible_to(actor).filter(pk=group_id).first()
    if group is None:
        raise NotFound(_NO_GROUP)
    return group


def _named(name: str, actor: User) -> Group:
    owner, _, slug = name.rpartition("/")
    rows = groups_visible_to(actor).filter(slug=slug)
    group = rows.filter(team__slug=owner).first() if owner else rows.filter(team=None).first()
    if group is None:
        raise NotFound(
            f"No group {name[:121]} found. Use devs for a group of the installation, shop/devs for a team's."
        )
    return group
