"""The verbs and the built-in roles. Roles are rows in the database, and admins create custom ones."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Verb(StrEnum):
    """One permission of a person or a robot. The codename of its Django permission has `_` instead of `.`."""

    IMAGE_VIEW = "image.view"
    IMAGE_CREATE = "image.create"
    IMAGE_AMEND = "image.amend"
    IMAGE_DELETE = "image.delete"
    IMAGE_REBUILD = "image.rebuild"
    IMAGE_SCAN = "image.scan"
    IMAGE_SIGN = "image.sign"
    IMAGE_QUARANTINE = "image.quarantine"
    RECIPE_MANAGE = "recipe.manage"
    PROMOTION_REQUEST = "promotion.request"
    PROMOTION_APPROVE = "promotion.approve"
    PROMOTION_EXECUTE = "promotion.execute"
    PROMOTION_BREAKGLASS = "promotion.breakglass"
    WAIVER_REQUEST = "waiver.request"
    WAIVER_APPROVE = "waiver.approve"
    POLICY_MANAGE = "policy.manage"
    ENVIRONMENT_MANAGE = "environment.manage"
    TEAM_MANAGE = "team.manage"
    ROBOT_MANAGE = "robot.manage"
    RUNTIME_REPORT = "runtime.report"
    RUNTIME_MANAGE = "runtime.manage"
    AUDIT_READ = "audit.read"

    @property
    def codename(self) -> str:
        """The codename of the Django permission for this verb, for example `promotion_approve`."""
        return self.value.replace(".", "_")


# Verbs that roles already include but that no code checks yet, because their features do not exist yet.
NOT_CHECKED_YET: Final = frozenset(
    {
        Verb.IMAGE_SIGN,
    }
)

_CREATOR: Final = frozenset(
    {Verb.IMAGE_VIEW, Verb.IMAGE_CREATE, Verb.IMAGE_REBUILD, Verb.IMAGE_SCAN, Verb.PROMOTION_REQUEST}
)

# The built-in roles, by slug. A migration creates the rows.
BUILTIN_ROLES: Final[dict[str, frozenset[Verb]]] = {
    "viewer": frozenset({Verb.IMAGE_VIEW}),
    "creator": _CREATOR,
    "maintainer": _CREATOR
    | {Verb.IMAGE_AMEND, Verb.IMAGE_DELETE, Verb.IMAGE_SIGN, Verb.RECIPE_MANAGE, Verb.RUNTIME_MANAGE},
    "approver": frozenset({Verb.IMAGE_VIEW, Verb.PROMOTION_APPROVE, Verb.WAIVER_APPROVE}),
    "deployer": frozenset({Verb.IMAGE_VIEW, Verb.PROMOTION_EXECUTE}),
    "security": frozenset(
        {
            Verb.IMAGE_VIEW,
            Verb.IMAGE_SCAN,
            Verb.IMAGE_QUARANTINE,
            Verb.POLICY_MANAGE,
            Verb.WAIVER_REQUEST,
            Verb.WAIVER_APPROVE,
            Verb.RUNTIME_REPORT,
            Verb.RUNTIME_MANAGE,
        }
    ),
    "agent": frozenset({Verb.RUNTIME_REPORT}),  # of what reports a cluster or host: it sees nothing
    "auditor": frozenset({Verb.IMAGE_VIEW, Verb.AUDIT_READ}),
    "owner": frozenset(Verb) - {Verb.PROMOTION_BREAKGLASS},
}
ROLES_OF_MACHINES: Final = frozenset({"agent"})  # built-in roles that no person and no group gets
