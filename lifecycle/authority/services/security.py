"""What an admin decides about sign-ins and approvals for the whole site."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from accounts.models import Role, User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import SecurityChanged, SecurityContent
from lifecycle.authority import proofs, resets
from lifecycle.authority.models import SecuritySettings
from lifecycle.authority.rights import is_above_grants
from lifecycle.authority.second_factors import has_factor
from lifecycle.core import context
from lifecycle.core.errors import Conflict, Malformed, NotPermitted, StaleVersion, StepUpRequired
from lifecycle.core.reasons import Reason, refuse_if


def security_now() -> SecuritySettings:
    """Return the settings; a new row, not stored, while everything is off."""
    return SecuritySettings.objects.filter(pk=SecuritySettings.ONLY).first() or SecuritySettings()


def roles_with_factor() -> list[str]:
    """Return the short names of the roles that need a second factor, sorted."""
    return list(Role.objects.filter(security_settings__isnull=False).order_by("slug").values_list("slug", flat=True))


def why_no_fresh_factor(actor: User, what: str) -> Reason | None:
    """Return why `what` ("Approving into production") needs a second factor of the last minutes first, else None.

    It reads the clock in the transaction of the act. Commands, which act as the system user, prove it by the machine.
    A factor that was set up after an admin reset how the person signs in proves nothing for a while.
    """
    if actor.kind == User.Kind.SYSTEM:
        return None
    if (reset := resets.why_reset(actor)) is not None:
        return Reason(f"{what} is not possible yet. {reset.text}")
    if proofs.was_confirmed(strongly=True, within_s=proofs.STEP_UP_S):
        return None
    if context.current().token_lookup:
        words = f"{what} needs a second factor, which a token never has. Do it in the browser."
    elif not has_factor(actor):
        words = f"{what} needs a second factor. Set one up on your account page first."
    else:
        words = f"{what} needs your second factor from the last 15 minutes. Confirm that it is you."
    return Reason(words, StepUpRequired)


@transaction.atomic
def change_security(
    *,
    actor: User,
    second_factor_for_admins: bool,
    second_factor_for_roles: Iterable[str],
    step_up_is_on: bool,
    revision: int | None = None,
) -> SecuritySettings:
    """Change who needs a second factor, and whether approvals need a fresh one. It takes effect with the next request.

    Whatever asks for less than before needs a fresh second factor, and so never works with a token: else whoever it
    should stop switches it off first. Raises NotPermitted unless `actor` is an admin, StepUpRequired, Malformed for an
    unknown role, StaleVersion when somebody changed them since `revision`, and Conflict for an admin without a second
    factor who requires one of admins: whoever does it sees first that it works here.
    """
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can change what sign-ins need. Ask an admin.")
    SecuritySettings.objects.get_or_create(pk=SecuritySettings.ONLY)
    row = SecuritySettings.objects.select_for_update().get(pk=SecuritySettings.ONLY)
    if revision is not None and revision != row.revision:
        raise StaleVersion("Somebody changed these settings meanwhile. Load them again and repeat the change.")
    wanted = set(second_factor_for_roles)
    roles = list(Role.objects.filter(slug__in=wanted))
    if unknown := wanted - {role.slug for role in roles}:
        raise Malformed(f"Unknown roles: {', '.join(sorted(unknown))[:200]}.")
    if second_factor_for_admins and not row.second_factor_for_admins and not has_factor(actor):
        raise Conflict("Set up a second factor for your own account first. Then require it of all admins.")
    before = _content(row)
    asks_less = (
        (row.second_factor_for_admins and not second_factor_for_admins)
        or (row.step_up_is_on and not step_up_is_on)
        or not wanted.issuperset(before.second_factor_for_roles)
    )
    if asks_less:
        refuse_if(why_no_fresh_factor(actor, "Asking for less security"))
    row.second_factor_for_admins, row.step_up_is_on = second_factor_for_admins, step_up_is_on
    row.second_factor_for_roles.set(roles)
    after = _content(row)
    if after != before:
        row.revision += 1
        row.save()
        details = SecurityChanged(before=before, after=after)
        audit.record(Action.SECURITY_CHANGED, actor=actor, details=details)
    return row


def _content(row: SecuritySettings) -> SecurityContent:
    return SecurityContent(
        second_factor_for_admins=row.second_factor_for_admins,
        second_factor_for_roles=tuple(roles_with_factor()),
        step_up_is_on=row.step_up_is_on,
    )
