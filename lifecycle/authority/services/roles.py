"""Custom roles: named sets of verbs that admins create. Built-in roles are defined in code and cannot be changed."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import IntegrityError, transaction

from accounts.models import Role, User
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import RoleChanged, RoleContent, RoleCreated, RoleDeleted
from lifecycle.authority.models import HeldGrant
from lifecycle.authority.projection import project_all
from lifecycle.authority.rights import is_above_grants
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted


@transaction.atomic
def create_role(*, actor: User, slug: str, name: str, verbs: Iterable[str]) -> Role:
    """Create a role. Raises NotPermitted unless `actor` is an admin, Malformed, or Conflict for a used name."""
    _require_admin(actor)
    chosen = _verbs(verbs)
    try:
        validate_slug(slug)
        role = Role(slug=slug, name=name.strip() or slug, verbs=chosen)
        role.clean_fields()
    except ValidationError:
        raise Malformed(
            "Enter a short name of up to 60 letters, digits, hyphens and underscores."
            " The name can have up to 120 characters."
        ) from None
    try:
        with transaction.atomic():
            role.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"Role {slug} already exists. Choose another name.") from None
    details = RoleCreated(role=role.slug, after=_content(role))
    audit.record(Action.ROLE_CREATED, actor=actor, subject=role, details=details)
    return role


@transaction.atomic
def change_role(slug: str, *, actor: User, name: str, verbs: Iterable[str]) -> Role:
    """Change the name and the verbs of a custom role. The change takes effect immediately for all its users.

    Raises NotFound, NotPermitted (also for built-in roles), or Malformed.
    """
    role = _lock_role(slug, actor)
    before = _content(role)
    role.name, role.verbs = name.strip() or role.slug, _verbs(verbs)
    try:
        role.clean_fields()
    except ValidationError:
        raise Malformed("Enter a role name of up to 120 characters.") from None
    after = _content(role)
    if after == before:
        return role
    role.save(update_fields=["name", "verbs"])
    holders = sorted(set(HeldGrant.objects.filter(role=role).values_list("user", flat=True)))
    project_all(holders)
    events.publish(events.RightsChanged(tuple(holders)))
    details = RoleChanged(role=role.slug, before=before, after=after)
    audit.record(Action.ROLE_CHANGED, actor=actor, subject=role, details=details)
    return role


@transaction.atomic
def delete_role(slug: str, *, actor: User) -> None:
    """Delete a custom role. Raises NotFound, NotPermitted, or Conflict while the role has grants, expired ones too."""
    role = _lock_role(slug, actor)
    count = role.grants.count()
    if count:
        text = "1 grant. Revoke it first." if count == 1 else f"{count} grants. Revoke them first."
        raise Conflict(f"Role {role} has {text}")
    rule = role.approval_rules.select_related("environment__team").first()
    if rule is not None:
        raise Conflict(f"The approval rule {rule} of {rule.environment.team}/{rule.environment} names role {role}.")
    details = RoleDeleted(role=role.slug, before=_content(role))
    audit.record(Action.ROLE_DELETED, actor=actor, subject=role, details=details)
    role.delete()


def _require_admin(actor: User) -> None:
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can create and change roles. Ask an admin.")


def _lock_role(slug: str, actor: User) -> Role:
    role = Role.objects.select_for_update().filter(slug=slug).first()
    if role is None:
        raise NotFound("Role not found, or you don't have access.")
    _require_admin(actor)
    if role.is_builtin:
        raise NotPermitted(f"{role} is built-in and cannot be changed. Create a custom role.")
    return role


def _content(role: Role) -> RoleContent:
    return RoleContent(name=role.name, verbs=tuple(sorted(role.verbs)))


def _verbs(verbs: Iterable[str]) -> list[str]:
    chosen = sorted(set(verbs))
    unknown = sorted(set(chosen) - {verb.value for verb in Verb})
    if unknown:
        raise Malformed(f"Unknown verbs: {', '.join(unknown)[:200]}.")
    if not chosen:
        raise Malformed("Choose at least one verb.")
    return chosen
