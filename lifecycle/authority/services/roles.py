"""Roles that admins compose: named sets of verbs. The built-in ones stay as the code has them."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import IntegrityError, transaction

from accounts.models import Role, User
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, RoleChanged, RoleContent, RoleCreated, RoleDeleted
from lifecycle.authority.projection import project
from lifecycle.authority.services.teams import is_above_grants
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted


@transaction.atomic
def create_role(*, actor: User, slug: str, name: str, verbs: Iterable[str]) -> Role:
    """Make a role of some verbs. Raises NotPermitted for who is no admin, Malformed, or Conflict for a taken name."""
    _require_admin(actor)
    chosen = _verbs(verbs)
    try:
        validate_slug(slug)
        role = Role(slug=slug, name=name.strip() or slug, verbs=chosen)
        role.clean_fields()
    except ValidationError:
        raise Malformed("A role's short name has up to 60 letters, digits, hyphens and underscores.") from None
    try:
        with transaction.atomic():
            role.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"There is a role {slug} already.") from None
    details = RoleCreated(role=role.slug, after=_content(role))
    audit.record(Action.ROLE_CREATED, actor=actor, subject=role, details=details)
    return role


@transaction.atomic
def change_role(slug: str, *, actor: User, name: str, verbs: Iterable[str]) -> Role:
    """Give a composed role another name or other verbs; whoever holds it may more, or less, from the next request on.

    Raises NotFound, NotPermitted (built-in roles too), or Malformed.
    """
    role = _lock_role(slug, actor)
    before = _content(role)
    role.name, role.verbs = name.strip() or role.slug, _verbs(verbs)
    try:
        role.clean_fields()
    except ValidationError:
        raise Malformed("A role's name has up to 120 characters.") from None
    after = _content(role)
    if after == before:
        return role
    role.save(update_fields=["name", "verbs"])
    holders = list(User.objects.filter(role_grants__role=role).distinct().order_by("pk"))
    for user in holders:
        project(user)
    events.publish(events.RightsChanged(tuple(user.pk for user in holders)))
    details = RoleChanged(role=role.slug, before=before, after=after)
    audit.record(Action.ROLE_CHANGED, actor=actor, subject=role, details=details)
    return role


@transaction.atomic
def delete_role(slug: str, *, actor: User) -> None:
    """Remove a composed role that nobody holds. Raises NotFound, NotPermitted, or Conflict while a grant names it."""
    role = _lock_role(slug, actor)
    count = role.grants.count()
    if count:
        raise Conflict(f"{count} grants name the role {role}; revoke them first.")
    details = RoleDeleted(role=role.slug, before=_content(role))
    audit.record(Action.ROLE_DELETED, actor=actor, subject=role, details=details)
    role.delete()


def _require_admin(actor: User) -> None:
    if not is_above_grants(actor):
        raise NotPermitted("Only an admin composes roles; ask one.")


def _lock_role(slug: str, actor: User) -> Role:
    role = Role.objects.select_for_update().filter(slug=slug).first()
    if role is None:
        raise NotFound("There is no such role.")
    _require_admin(actor)
    if role.is_builtin:
        raise NotPermitted(f"{role} is built in and stays as it is; compose a role of your own.")
    return role


def _content(role: Role) -> RoleContent:
    return RoleContent(name=role.name, verbs=tuple(sorted(role.verbs)))


def _verbs(verbs: Iterable[str]) -> list[str]:
    chosen = sorted(set(verbs))
    unknown = sorted(set(chosen) - {verb.value for verb in Verb})
    if unknown:
        raise Malformed(f"No verbs of ours: {', '.join(unknown)[:200]}.")
    if not chosen:
        raise Malformed("A role has at least one verb.")
    return chosen
