"""All audit actions, the meaning of each, and the details stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, Final, Self


class Action(StrEnum):
    """Something that was done, approved or rejected, or denied.

    Values are stored and searched for, so never change one. Each member is written as (stored value, meaning).
    """

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    ACCESS_REFUSED = (
        "access.refused",
        "A signed-in user tried to change something without permission to change or see it.",
    )
    ADVISORIES_SYNCED = "advisories.synced", "Gravingdock synced an advisory feed."
    AUDIT_EXPORTED = "audit.exported", "A person exported audit events."
    BUILDER_TURNED_OFF = (
        "builder.turned_off",
        "An admin turned the embedded builder off for a team or a repository.",
    )
    BUILDER_TURNED_ON = "builder.turned_on", "An admin turned the embedded builder on for a team or a repository."
    DEMO_SEEDED = "demo.seeded", "The demonstration created its teams, accounts and environments."
    ENVIRONMENT_CREATED = "environment.created", "An environment was added to a team's promotion path."
    GRANT_CHANGED = "grant.changed", "The expiry of a grant was changed."
    GRANT_CREATED = "grant.created", "A user was granted a role."
    GRANT_REVOKED = "grant.revoked", "A grant was revoked."
    IMAGE_DELETION_REQUESTED = "image.deletion_requested", "A user asked to delete an image or a tag in the registry."
    IMAGE_DELETED = "image.deleted", "An image was deleted from a repository in the registry."
    IMAGE_PUSH_ATTRIBUTED = (
        "image.push_attributed",
        "The user who pushed an already recorded image was identified.",
    )
    IMAGE_PUSHED = "image.pushed", "An image was pushed to a repository, or a tag was moved to it."
    IMAGE_RESCAN_REQUESTED = "image.rescan_requested", "A user asked to scan an image again."
    IMAGE_REBUILD_FAILED = "image.rebuild_failed", "The rebuild of an image failed."
    IMAGE_REBUILT = "image.rebuilt", "An image was rebuilt on a new base."
    INVENTORY_IMPORTED = "inventory.imported", "A batch of images was imported from an inventory file."
    JOB_CANCELLED = "job.cancelled", "A person cancelled a job."
    JOB_RETRIED = "job.retried", "A person retried a job that had failed or been cancelled."
    KEYS_ROTATED = "keys.rotated", "All stored secrets were encrypted with the current FIELD_KEY."
    LINEAGE_DECLARED = "lineage.declared", "The base of an image was declared."
    METADATA_REMOVED = "metadata.removed", "A key of the metadata of a repository or image was removed."
    METADATA_SET = "metadata.set", "A key of the metadata of a repository or image was set."
    PROMOTION_APPROVED = "promotion.approved", "A person approved a promotion request."
    PROMOTION_ATTEMPT_FAILED = (
        "promotion.attempt_failed",
        "A promotion failed for a technical reason; it can be run again.",
    )
    PROMOTION_EXECUTING = "promotion.executing", "A promotion was started."
    PROMOTION_EXPIRED = "promotion.expired", "A promotion request expired before it was approved or run."
    PROMOTION_FAILED = "promotion.failed", "A promotion failed; the environment kept the image it had."
    PROMOTION_READY = "promotion.ready", "A promotion request met every requirement."
    PROMOTION_REGRESSED = "promotion.regressed", "A promotion request that was ready stopped meeting its requirements."
    PROMOTION_REJECTED = "promotion.rejected", "A person rejected a promotion request."
    PROMOTION_REQUESTED = "promotion.requested", "A promotion of an image into an environment was requested."
    PROMOTION_SUCCEEDED = "promotion.succeeded", "A promotion succeeded, and the environment has the new image."
    PROMOTION_VERIFYING = "promotion.verifying", "A promoted image was copied; its verification started."
    PROMOTION_VOTE_LAPSED = (
        "promotion.vote_lapsed",
        "An approval lapsed because a critical or high finding appeared after it.",
    )
    PROMOTION_WITHDRAWN = "promotion.withdrawn", "A promotion request was withdrawn."
    REBUILD_CANCELLED = "rebuild.cancelled", "A rebuild wave was cancelled."
    REBUILD_CONFIRMED = "rebuild.confirmed", "A rebuild wave was confirmed and started."
    REBUILD_FINISHED = "rebuild.finished", "A rebuild wave finished."
    REBUILD_PLANNED = "rebuild.planned", "A rebuild wave was planned for a new base image."
    REBUILD_RETRIED = "rebuild.retried", "A failed rebuild wave was retried."
    REBUILD_SUPERSEDED = "rebuild.superseded", "A planned rebuild wave was replaced by a plan for a newer base image."
    RECIPE_CHANGED = "recipe.changed", "The build recipe of a repository was created or changed."
    REPOSITORY_DESCRIBED = "repository.described", "The description of a repository was changed."
    REPOSITORY_TAGS_PROTECTED = "repository.tags_protected", "The protected tag patterns of a repository were changed."
    ROBOT_CREATED = "robot.created", "A robot account was created."
    ROBOT_RETIRED = "robot.retired", "A robot account was retired."
    ROBOT_TAKEN_OVER = "robot.taken_over", "A person became responsible for a robot; its rights are bounded by theirs."
    ROLE_CHANGED = "role.changed", "The name or the verbs of a custom role were changed."
    ROLE_CREATED = "role.created", "A custom role was created."
    ROLE_DELETED = "role.deleted", "A custom role was deleted."
    SESSION_ENDED = "session.ended", "A person signed out."
    SESSION_REFUSED = "session.refused", "A sign-in failed."
    SESSION_STARTED = "session.started", "A person signed in."
    TAG_DELETED = "tag.deleted", "A tag was deleted in the registry."
    TAG_MOVE_REFUSED = "tag.move_refused", "A protected tag was moved without permission. The move is undone."
    TAG_NOT_MOVED_BACK = (
        "tag.not_moved_back",
        "A refused move of a protected tag could not be undone; the tag stays where it is.",
    )
    TEAM_CHANGED = "team.changed", "The name of a team was changed."
    TEAM_DELETED = "team.deleted", "A team without repositories was deleted, with its grants."
    TEAM_CREATED = "team.created", "A team was created."
    TOKEN_CREATED = "token.created", "An API token was created."
    TOKEN_REVOKED = "token.revoked", "An API token was revoked."
    USER_ADMIN_GRANTED = "user.admin_granted", "A user was made an admin."
    USER_ADMIN_REVOKED = "user.admin_revoked", "A user is no longer an admin."
    USER_CREATED = "user.created", "An account was created."
    USER_DEACTIVATED = "user.deactivated", "An account was deactivated."
    USER_LINK_USED = "user.link_used", "A person set their password with an invitation or a reset link."
    USER_MAIL_VERIFIED = "user.mail_verified", "An admin confirmed the mail of an account."
    USER_PASSWORD_CHANGED = "user.password_changed", "A person changed their password."
    USER_PASSWORD_RESET = "user.password_reset", "The password of an account was reset."
    USER_PROFILE_CHANGED = "user.profile_changed", "A person changed their name, mail or time zone."
    USER_REACTIVATED = "user.reactivated", "An account was reactivated."
    USER_UNLOCKED = "user.unlocked", "The failed sign-ins of an account were cleared."
    WATCH_ADDED = "watch.added", "A watch was added: moves of a tag propose a rebuild wave."
    WATCH_REMOVED = "watch.removed", "A watch on a tag was removed."


@dataclass(frozen=True, slots=True)
class Details:
    """Base of all details. Field names are the stored keys; no field may contain a secret."""

    def as_json(self) -> dict[str, Any]:
        """Return the details as they are stored."""
        return {field.name: _as_json(getattr(self, field.name)) for field in fields(self)}


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _as_json(getattr(value, field.name)) for field in fields(value)}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class UserDetails(Details):
    """The name of the account concerned; "unknown" for a sign-in without an account."""

    user: str


@dataclass(frozen=True, slots=True)
class TagDetails(Details):
    """The name of the tag concerned."""

    tag: str


@dataclass(frozen=True, slots=True)
class GrantDetails(Details):
    """The user, the role and the repository pattern of a grant."""

    user: str
    role: str
    repositories: str


@dataclass(frozen=True, slots=True)
class GrantCreated(GrantDetails):
    """A grant, and when it expires: ISO 8601, or "never"."""

    expires_at: str


@dataclass(frozen=True, slots=True)
class GrantExpiry:
    """When a grant expires: ISO 8601, or "never"."""

    expires_at: str


@dataclass(frozen=True, slots=True)
class GrantChanged(GrantDetails):
    """A grant, and its expiry before and after the change."""

    before: GrantExpiry
    after: GrantExpiry


@dataclass(frozen=True, slots=True)
class RoleContent:
    """The display name of a role and its verbs, sorted."""

    name: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleCreated(Details):
    """The short name of a new role, and its content."""

    role: str
    after: RoleContent


@dataclass(frozen=True, slots=True)
class RoleChanged(Details):
    """The short name of a role, and its content before and after the change."""

    role: str
    before: RoleContent
    after: RoleContent


@dataclass(frozen=True, slots=True)
class RoleDeleted(Details):
    """The short name of a deleted role, and its last content."""

    role: str
    before: RoleContent


@dataclass(frozen=True, slots=True)
class UserCreated(Details):
    """The name of a new account, whether it is an admin, and its secret: see `user.password_reset`."""

    user: str
    is_admin: bool
    secret_kind: str


@dataclass(frozen=True, slots=True)
class UserSecret(Details):
    """The name of an account, and its new secret: a link, a password that must be changed, or one that stays.

    A password from a command or the demonstration is exempt: it stays, and the votes of the account count.
    """

    user: str
    secret_kind: str


@dataclass(frozen=True, slots=True)
class LinkUsed(Details):
    """The account, the kind of link, who created it, and whether it was used from the address where it was created."""

    user: str
    kind: str
    made_by: str
    same_address: bool


@dataclass(frozen=True, slots=True)
class Profile:
    """The name, mail and time zone of a person."""

    name: str
    mail: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class ProfileChanged(Details):
    """The name of an account, and its profile before and after the change."""

    user: str
    before: Profile
    after: Profile


@dataclass(frozen=True, slots=True)
class UserUnlocked(Details):
    """The name of an account, and the number of failed sign-ins that were cleared."""

    user: str
    forgotten: int


@dataclass(frozen=True, slots=True)
class TokenCreated(Details):
    """A new token: its owner, first characters (not secret), lifetime in days, and kind: pat, rob or ref.

    `parent` has the first characters of the token that was used to create it; "" for none. `seen_by` is the other user
    who saw its text; "" for none. A token from a command or the demonstration is exempt: votes with it count.
    """

    user: str
    lookup: str
    days: float
    kind: str
    parent: str
    seen_by: str


@dataclass(frozen=True, slots=True)
class TokenRevoked(Details):
    """The owner of a token, and the first characters of the token (not secret)."""

    user: str
    lookup: str


@dataclass(frozen=True, slots=True)
class RobotTakenOver(Details):
    """A robot, the user responsible for it before ("" for none) and now, and the number of tokens revoked with it."""

    user: str
    before: str
    after: str
    revoked: int


@dataclass(frozen=True, slots=True)
class EnvironmentCreated(Details):
    """The repository prefix of a new environment, and the number of approvals it requires."""

    prefix: str
    required_approvals: int


@dataclass(frozen=True, slots=True)
class AccessRefused(Details):
    """The refused request: HTTP method, path (at most 300 characters), and the error code of the answer."""

    method: str
    path: str
    code: str


@dataclass(frozen=True, slots=True)
class AuditExported(Details):
    """The file format of an export, and the filter fields that were set."""

    format: str
    filter: dict[str, str]


@dataclass(frozen=True, slots=True)
class DemoSeeded(Details):
    """The names of the demonstration accounts, sorted."""

    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a job."""

    state: str


@dataclass(frozen=True, slots=True)
class JobCancelled(Details):
    """The kind of a job, and its state before it was cancelled."""

    kind: str
    before: JobState


@dataclass(frozen=True, slots=True)
class JobRetried(Details):
    """The kind of a job, and the id of the new job."""

    kind: str
    again: int


@dataclass(frozen=True, slots=True)
class AdvisoriesSynced(Details):
    """The numbers of stored advisories, of those that the feed no longer lists, of errors, and of unreadable ranges.

    Packages in an unreadable range have findings in state `unknown`.
    """

    stored: int
    tombstoned: int
    errors: int
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class InventoryImported(Details):
    """The numbers of added images, of images whose packages were stored, and of entries in repositories."""

    images: int
    scanned: int
    placed: int


@dataclass(frozen=True, slots=True)
class KeysRotated(Details):
    """The id of the current key (not secret), and the numbers of secrets encrypted with it and of unreadable ones."""

    key: str
    sealed: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class LineageDeclared(Details):
    """The digest of the declared base image."""

    base: str


@dataclass(frozen=True, slots=True)
class ImagePushed(Details):
    """The pushed tag ("" for a push by digest), how it was detected, the image's kind, and the digest it replaced."""

    tag: str
    via: str
    kind: str
    replaced: str


@dataclass(frozen=True, slots=True)
class ImagePushAttributed(Details):
    """The pushed tag, and how the push was detected."""

    tag: str
    via: str


@dataclass(frozen=True, slots=True)
class TagMoveRefused(Details):
    """The protected tag, and the digest that it is moved back to ("" for none)."""

    tag: str
    kept: str


@dataclass(frozen=True, slots=True)
class TagsProtected(Details):
    """The protected tag patterns of a repository before the change, and the new ones."""

    before: tuple[str, ...]
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepositoryDescribed(Details):
    """The description of a repository before and after the change."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class MetadataChanged(Details):
    """The key and the type of the metadata, and the value before and after; "" for none."""

    key: str
    kind: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class DeletionRequested(Details):
    """The tag to delete; "" for an image with all its tags."""

    tag: str


@dataclass(frozen=True, slots=True)
class TeamName:
    """The display name of a team."""

    name: str


@dataclass(frozen=True, slots=True)
class TeamChanged(Details):
    """The short name of a team, and its display name before and after the change."""

    slug: str
    before: TeamName
    after: TeamName


@dataclass(frozen=True, slots=True)
class TeamDeleted(Details):
    """The short name of a deleted team, its display name, and the number of grants deleted with it."""

    slug: str
    before: TeamName
    grants: int


@dataclass(frozen=True, slots=True)
class PromotionExecuting(Details):
    """The digest of the evaluation that allowed a promotion, and the fencing number of its job."""

    evaluation: str
    fence: int


@dataclass(frozen=True, slots=True)
class VoteLapsed(Details):
    """The name of the person whose approval lapsed."""

    voter: str


@dataclass(frozen=True, slots=True)
class RecipeChanged(Details):
    """The number of the new revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class ImageRebuilt(Details):
    """The digest of the old image, and the method of the rebuild."""

    old: str
    method: str


@dataclass(frozen=True, slots=True)
class RebuildPlanned(Details):
    """The number of images to rebuild, and what triggered the plan."""

    images: int
    trigger: str


@dataclass(frozen=True, slots=True)
class RebuildSuperseded(Details):
    """The id of the newer wave."""

    by: int


@dataclass(frozen=True, slots=True)
class RebuildFinished(Details):
    """The final state of a wave."""

    state: str


# Actions that are not listed here have no details.
DETAILS_OF: Final[Mapping[Action, type[Details]]] = {
    Action.ACCESS_REFUSED: AccessRefused,
    Action.ADVISORIES_SYNCED: AdvisoriesSynced,
    Action.AUDIT_EXPORTED: AuditExported,
    Action.DEMO_SEEDED: DemoSeeded,
    Action.ENVIRONMENT_CREATED: EnvironmentCreated,
    Action.GRANT_CHANGED: GrantChanged,
    Action.GRANT_CREATED: GrantCreated,
    Action.GRANT_REVOKED: GrantDetails,
    Action.IMAGE_DELETION_REQUESTED: DeletionRequested,
    Action.IMAGE_PUSH_ATTRIBUTED: ImagePushAttributed,
    Action.IMAGE_PUSHED: ImagePushed,
    Action.IMAGE_REBUILT: ImageRebuilt,
    Action.INVENTORY_IMPORTED: InventoryImported,
    Action.JOB_CANCELLED: JobCancelled,
    Action.JOB_RETRIED: JobRetried,
    Action.KEYS_ROTATED: KeysRotated,
    Action.LINEAGE_DECLARED: LineageDeclared,
    Action.METADATA_REMOVED: MetadataChanged,
    Action.METADATA_SET: MetadataChanged,
    Action.PROMOTION_EXECUTING: PromotionExecuting,
    Action.PROMOTION_REQUESTED: TagDetails,
    Action.PROMOTION_SUCCEEDED: TagDetails,
    Action.PROMOTION_VOTE_LAPSED: VoteLapsed,
    Action.REBUILD_FINISHED: RebuildFinished,
    Action.REBUILD_PLANNED: RebuildPlanned,
    Action.REBUILD_SUPERSEDED: RebuildSuperseded,
    Action.RECIPE_CHANGED: RecipeChanged,
    Action.REPOSITORY_DESCRIBED: RepositoryDescribed,
    Action.REPOSITORY_TAGS_PROTECTED: TagsProtected,
    Action.ROBOT_CREATED: UserDetails,
    Action.ROBOT_RETIRED: UserDetails,
    Action.ROBOT_TAKEN_OVER: RobotTakenOver,
    Action.ROLE_CHANGED: RoleChanged,
    Action.ROLE_CREATED: RoleCreated,
    Action.ROLE_DELETED: RoleDeleted,
    Action.SESSION_ENDED: UserDetails,
    Action.SESSION_REFUSED: UserDetails,
    Action.SESSION_STARTED: UserDetails,
    Action.TAG_DELETED: TagDetails,
    Action.TAG_MOVE_REFUSED: TagMoveRefused,
    Action.TAG_NOT_MOVED_BACK: TagDetails,
    Action.TEAM_CHANGED: TeamChanged,
    Action.TEAM_DELETED: TeamDeleted,
    Action.TOKEN_CREATED: TokenCreated,
    Action.TOKEN_REVOKED: TokenRevoked,
    Action.USER_ADMIN_GRANTED: UserDetails,
    Action.USER_ADMIN_REVOKED: UserDetails,
    Action.USER_CREATED: UserCreated,
    Action.USER_DEACTIVATED: UserDetails,
    Action.USER_LINK_USED: LinkUsed,
    Action.USER_MAIL_VERIFIED: UserDetails,
    Action.USER_PASSWORD_CHANGED: UserDetails,
    Action.USER_PASSWORD_RESET: UserSecret,
    Action.USER_PROFILE_CHANGED: ProfileChanged,
    Action.USER_REACTIVATED: UserSecret,
    Action.USER_UNLOCKED: UserUnlocked,
    Action.WATCH_ADDED: TagDetails,
    Action.WATCH_REMOVED: TagDetails,
}
