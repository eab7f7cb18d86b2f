"""Live grants, of people, robots, and people through groups.

Only this module checks the expiry of grants and the state of accounts.
"""

from __future__ import annotations

from typing import Final

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.models import HeldGrant
from lifecycle.environments.models import Environment

# The same condition in SQL, for lifecycle_heldgrant as g. A test compares it with `live_grants`.
LIVE_SQL: Final = "(g.expires_at IS NULL OR g.expires_at > statement_timestamp())"


def live_grants(principal: User | None = None, verb: Verb | None = None) -> QuerySet[HeldGrant]:
    """Return the live grants: not expired by the database's clock, and of an active account.

    With a `principal` (a person or a robot), return only its grants, also those of groups that it is in. With a `verb`,
    return only grants whose role includes it. A user who has a grant in two ways has two rows: count users, not rows.
    """
    rows = HeldGrant.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()))
    if principal is None:
        rows = rows.filter(user__is_active=True)
    elif principal.is_active:
        rows = rows.filter(user=principal)
    else:
        return HeldGrant.objects.none()
    return rows if verb is None else rows.filter(role__verbs__contains=[verb.value])


def applies_in(environment: Environment | None) -> Q:
    """Return the condition that a grant applies to actions in `environment`, or to actions without one for None."""
    return Q(environment=None) if environment is None else Q(environment=None) | Q(environment=environment)


def over_whole_team() -> Q:
    """Return the condition that a grant covers the whole team: all repositories and all environments."""
    return Q(repository_pattern="*", environment=None)
