"""The verbs of admins, a short description of each verb, and the groups of verbs on the role form."""

from __future__ import annotations

from typing import Final

from accounts.verbs import NOT_CHECKED_YET, Verb

# Verbs that every admin has in every team, to set up teams and roles. Admins have no other verbs without a grant.
ADMIN_VERBS: Final = frozenset({Verb.TEAM_MANAGE, Verb.AUDIT_READ, Verb.ENVIRONMENT_MANAGE, Verb.ROBOT_MANAGE})

VERB_GROUPS: Final[tuple[tuple[str, tuple[Verb, ...]], ...]] = (
    (
        "Images",
        (
            Verb.IMAGE_VIEW,
            Verb.IMAGE_CREATE,
            Verb.IMAGE_AMEND,
            Verb.IMAGE_DELETE,
            Verb.IMAGE_REBUILD,
            Verb.IMAGE_SCAN,
            Verb.IMAGE_SIGN,
            Verb.IMAGE_QUARANTINE,
            Verb.RECIPE_MANAGE,
        ),
    ),
    (
        "Promotions",
        (Verb.PROMOTION_REQUEST, Verb.PROMOTION_APPROVE, Verb.PROMOTION_EXECUTE, Verb.PROMOTION_BREAKGLASS),
    ),
    (
        "Waivers and policy",
        (Verb.WAIVER_REQUEST, Verb.WAIVER_APPROVE, Verb.POLICY_MANAGE, Verb.ENVIRONMENT_MANAGE),
    ),
    (
        "Administration",
        (Verb.TEAM_MANAGE, Verb.ROBOT_MANAGE, Verb.RUNTIME_REPORT, Verb.RUNTIME_MANAGE, Verb.AUDIT_READ),
    ),
)

_WORDS: Final[dict[Verb, str]] = {
    Verb.IMAGE_VIEW: "see and pull images, their findings and lineage",
    Verb.IMAGE_CREATE: "push a new image",
    Verb.IMAGE_AMEND: "move protected tags",
    Verb.IMAGE_DELETE: "delete an image or a tag",
    Verb.IMAGE_REBUILD: "start a rebuild",
    Verb.IMAGE_SCAN: "request a rescan",
    Verb.IMAGE_SIGN: "attach signatures",
    Verb.IMAGE_QUARANTINE: "block an image everywhere",
    Verb.RECIPE_MANAGE: "store and change build recipes",
    Verb.PROMOTION_REQUEST: "request a promotion",
    Verb.PROMOTION_APPROVE: "approve or reject requests of others",
    Verb.PROMOTION_EXECUTE: "run approved promotions",
    Verb.PROMOTION_BREAKGLASS: "skip open gates in an emergency",
    Verb.WAIVER_REQUEST: "request an exception",
    Verb.WAIVER_APPROVE: "grant an exception",
    Verb.POLICY_MANAGE: "edit gates and limits",
    Verb.ENVIRONMENT_MANAGE: "add environments",
    Verb.TEAM_MANAGE: "add members and grant roles",
    Verb.ROBOT_MANAGE: "create robots and their tokens",
    Verb.RUNTIME_REPORT: "report running images",
    Verb.RUNTIME_MANAGE: "acknowledge, snooze and resolve alerts",
    Verb.AUDIT_READ: "read the audit log",
}

VERB_WORDS: Final[dict[Verb, str]] = {
    verb: f"{words} (not available yet)" if verb in NOT_CHECKED_YET else words for verb, words in _WORDS.items()
}
