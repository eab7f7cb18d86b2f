"""Actions on external checks: create, change and delete. Each checks, locks, changes and audits in one transaction."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from accounts.models import Team, User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import ExternalCheckDetails
from lifecycle.core import sealing
from lifecycle.core.errors import Conflict, Malformed, StaleVersion
from lifecycle.core.reasons import refuse_if
from lifecycle.notices import webhooks
from lifecycle.policies.access import check_for, why_not_manage
from lifecycle.policies.models import ExternalCheck
from lifecycle.policies.types import Scope
from lifecycle.policy.rulesets import KEY

CHECKS_MAX: Final = 50  # of a team, and of the site


@transaction.atomic
def create_check(team: Team | None, name: str, address: str, *, actor: User) -> tuple[ExternalCheck, str]:
    """Create a check of a team, or of the site without one; return it with its secret, which is shown once.

    Raises NotPermitted, Malformed, Conflict when the name is taken.
    """
    refuse_if(why_not_manage(actor, Scope(team)))
    name = name.strip()
    if not KEY.match(name):
        raise Malformed("Enter a name of at most 60 lower-case letters, digits, - and _.", field="name")
    address = webhooks.checked_address(address)
    same = ExternalCheck.objects.filter(team=team)
    if same.filter(name=name).exists():
        raise Conflict(f"There is already a check named {name}. Choose another name.")
    if same.count() >= CHECKS_MAX:
        raise Conflict(f"There are {CHECKS_MAX} checks already. Delete one first.")
    row, secret = ExternalCheck.objects.create(team=team, name=name, created_by=actor), webhooks.new_secret()
    _seal(row, address=address, secret=secret)
    row.save()
    _record(Action.EXTERNAL_CHECK_CREATED, row, actor)
    return row, secret


@transaction.atomic
def change_check(
    check_id: int, *, actor: User, address: str = "", renew_secret: bool = False, revision: int | None = None
) -> tuple[ExternalCheck, str]:
    """Change the address, or replace the secret; return the check with its new secret ("" when it stays the same).

    Answers that it gave before do not count any more. Raises NotFound, NotPermitted, Malformed, StaleVersion when it
    has another `revision` by now.
    """
    row = check_for(actor, check_id, locked=True)
    refuse_if(why_not_manage(actor, Scope(row.team)))
    if revision is not None and revision != row.revision:
        raise StaleVersion("Somebody else has changed this check meanwhile. Load it again.")
    if not address.strip() and not renew_secret:
        raise Malformed("Enter a new address, or ask for a new secret.", field="address")
    secret = webhooks.new_secret() if renew_secret else ""
    _seal(row, address=webhooks.checked_address(address) if address.strip() else "", secret=secret)
    row.revision += 1
    row.save()
    _record(Action.EXTERNAL_CHECK_CHANGED, row, actor)
    _judge_again(row)
    return row, secret


@transaction.atomic
def delete_check(check_id: int, *, actor: User, revision: int | None = None) -> None:
    """Delete a check with its answers. Rules that name it do not pass any more.

    Raises NotFound, NotPermitted, StaleVersion.
    """
    row = check_for(actor, check_id, locked=True)
    refuse_if(why_not_manage(actor, Scope(row.team)))
    if revision is not None and revision != row.revision:
        raise StaleVersion("Somebody else has changed this check meanwhile. Load it again.")
    _record(Action.EXTERNAL_CHECK_DELETED, row, actor)
    _judge_again(row)
    row.delete()


def _judge_again(row: ExternalCheck) -> None:
    events.publish(events.PolicyChanged(row.team_id, None))


def _seal(row: ExternalCheck, *, address: str, secret: str) -> None:
    if address:
        row.address_sealed = sealing.seal(address, row, "address_sealed")
        row.host = webhooks.host_of(address)[:200]
    if secret:
        row.secret_sealed = sealing.seal(secret, row, "secret_sealed")


def _record(action: Action, row: ExternalCheck, actor: User) -> None:
    details = ExternalCheckDetails(check=str(row), host=row.host)
    audit.record(action, actor=actor, subject=row, team=row.team, details=details)
