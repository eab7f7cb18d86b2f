"""What admins hold, what each verb allows in words, and how verbs are grouped where people choose them."""

from __future__ import annotations

from typing import Final

from accounts.verbs import NOT_ASKED_FOR_YET, Verb

# What every admin holds in every team, so that teams and roles can be set up; nothing else comes with being one.
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
    ("Administration", (Verb.TEAM_MANAGE, Verb.ROBOT_MANAGE, Verb.RUNTIME_REPORT, Verb.AUDIT_READ)),
)

_WORDS: Final[dict[Verb, str]] = {
    Verb.IMAGE_VIEW: "see and pull images, their findings and lineage",
    Verb.IMAGE_CREATE: "push a new image",
    Verb.IMAGE_AMEND: "choose and move protected tags, put a new recipe in force",
    Verb.IMAGE_DELETE: "delete an image or a tag",
    Verb.IMAGE_REBUILD: "start a rebuild",
    Verb.IMAGE_SCAN: "ask for a rescan",
    Verb.IMAGE_SIGN: "attach signatures",
    Verb.IMAGE_QUARANTINE: "forbid an image everywhere",
    Verb.PROMOTION_REQUEST: "ask for a promotion",
    Verb.PROMOTION_APPROVE: "vote on somebody else's request",
    Verb.PROMOTION_EXECUTE: "carry out what was approved",
    Verb.PROMOTION_BREAKGLASS: "skip open gates in an emergency",
    Verb.WAIVER_REQUEST: "ask for an exception",
    Verb.WAIVER_APPROVE: "grant an exception",
    Verb.POLICY_MANAGE: "edit gates and limits",
    Verb.ENVIRONMENT_MANAGE: "add environments to the team's path",
    Verb.TEAM_MANAGE: "let people in and give them roles",
    Verb.ROBOT_MANAGE: "make machine accounts and their tokens",
    Verb.RUNTIME_REPORT: "report what runs",
    Verb.AUDIT_READ: "read the audit log",
}

VERB_WORDS: Final[dict[Verb, str]] = {
    verb: f"{words} (not built yet)" if verb in NOT_ASKED_FOR_YET else words for verb, words in _WORDS.items()
}
