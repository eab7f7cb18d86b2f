"""The details of audit events about people, teams, robots, tokens, registries and the site."""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.audit.details import Details


@dataclass(frozen=True, slots=True)
class GrantDetails(Details):
    """The user (`group:` and its name for a group), the role and the repository pattern of a grant."""

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
    `tokens_ended` is the number of tokens that ended with the old one.
    """

    user: str
    secret_kind: str
    tokens_ended: int


@dataclass(frozen=True, slots=True)
class TokensEnded(Details):
    """The name of an account, and the number of its tokens that ended with the change."""

    user: str
    tokens_ended: int


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
class FactorDetails(Details):
    """An account, the kind of a second factor (`totp`, `passkey`), its name, and the SHA-256 of a passkey's public key.

    The public key is a SubjectPublicKeyInfo in DER. With it, a signed vote can be checked against the audit log.
    """

    user: str
    kind: str
    name: str
    key_sha256: str


@dataclass(frozen=True, slots=True)
class RecoveryCodeUsed(Details):
    """An account, and the number of recovery codes that it has left."""

    user: str
    left: int


@dataclass(frozen=True, slots=True)
class SessionConfirmed(Details):
    """An account, and how its person proved who they are: `password`, `sso`, `totp`, `passkey` or `recovery`."""

    user: str
    kind: str


@dataclass(frozen=True, slots=True)
class SecurityContent:
    """Whether admins need a second factor, which roles (short names, sorted) do, whether approvals need it fresh."""

    second_factor_for_admins: bool
    second_factor_for_roles: tuple[str, ...]
    step_up_is_on: bool


@dataclass(frozen=True, slots=True)
class SecurityChanged(Details):
    """What sign-ins and approvals need, before and after the change."""

    before: SecurityContent
    after: SecurityContent


@dataclass(frozen=True, slots=True)
class SessionsRevoked(Details):
    """The name of an account, and the number of browser sessions that were ended."""

    user: str
    count: int


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
class TokenReplaced(Details):
    """A token that another one replaces: its owner, the first characters of both, and when it ends, before and after.

    Times are in ISO 8601.
    """

    user: str
    lookup: str
    replaced_by: str
    before: str
    after: str


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
class KeysRotated(Details):
    """The id of the current key (not secret), and the numbers of secrets encrypted with it and of unreadable ones."""

    key: str
    sealed: int
    unreadable: int


@dataclass(frozen=True, slots=True)
class TeamName:
    """The display name of a team."""

    name: str


@dataclass(frozen=True, slots=True)
class SigningKeyDetails(Details):
    """The name of the signing key, and the SHA-256 of its public key."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class RegistryDetails(Details):
    """A registry, our user name there, and whether its password was given or removed, and its authorities changed."""

    registry: str
    endpoint: str
    username: str
    is_password_changed: bool
    is_certificate_changed: bool  # of the certificate authorities that are trusted for it


@dataclass(frozen=True, slots=True)
class RegistryCollected(Details):
    """The registry, the number of blobs that its collector deleted, their bytes, and for how long it was stopped."""

    registry: str
    blobs: int
    freed_bytes: int
    seconds: int


@dataclass(frozen=True, slots=True)
class RegistryCollectionFailed(Details):
    """The registry, why its collector did not end well, and for how many seconds the attempt lasted."""

    registry: str
    problem: str
    seconds: int


@dataclass(frozen=True, slots=True)
class ChannelDetails(Details):
    """The name and the kind of a channel, the host of its address, and its topics."""

    channel: str
    kind: str
    host: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TeamChanged(Details):
    """The short name of a team, and its display name before and after the change."""

    slug: str
    before: TeamName
    after: TeamName


@dataclass(frozen=True, slots=True)
class AccessFileApplied(Details):
    """How many changes an access file made, and how many of them removed something. Each has an event of its own."""

    changes: int
    removals: int


@dataclass(frozen=True, slots=True)
class AccessAsked(Details):
    """Who asked for which role where, for how many days."""

    user: str
    role: str
    repositories: str
    days: int
    verb: str = ""  # what was refused


@dataclass(frozen=True, slots=True)
class RepositoryMoved(Details):
    """The short names of the team before, and of the team that has the repository now."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RepositoriesMoved(Details):
    """The short name of the team that has the repositories now, and their names."""

    to_team: str
    repositories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TeamDeleted(Details):
    """The short name of a deleted team, its display name, and the number of grants deleted with it."""

    slug: str
    before: TeamName
    grants: int
