"""Details of events about groups of people, providers of sign-in, and identities."""

from __future__ import annotations

from dataclasses import dataclass

from lifecycle.audit.details import Details


@dataclass(frozen=True, slots=True)
class GroupName:
    """The display name of a group."""

    name: str


@dataclass(frozen=True, slots=True)
class GroupCreated(Details):
    """A new group (`devs`, or `shop/devs` of a team), where its members come from, and its display name."""

    group: str
    source: str
    after: GroupName


@dataclass(frozen=True, slots=True)
class GroupChanged(Details):
    """A group, and its display name before and after the change."""

    group: str
    before: GroupName
    after: GroupName


@dataclass(frozen=True, slots=True)
class GroupDeleted(Details):
    """A deleted group, and the numbers of people who were in it and of grants deleted with it."""

    group: str
    members: int
    grants: int


@dataclass(frozen=True, slots=True)
class GroupMemberDetails(Details):
    """A group, and its member: a user, or another group ("" for the other). `source`: manual, sso, or a provider."""

    group: str
    user: str
    member: str
    source: str


@dataclass(frozen=True, slots=True)
class IdentityDetails(Details):
    """The account, the provider of its sign-in, and the subject there."""

    user: str
    provider: str
    subject: str


@dataclass(frozen=True, slots=True)
class SignInRefused(Details):
    """The provider of a refused sign-in, the account if one was found ("" if not), and why, in one sentence."""

    provider: str
    user: str
    why: str


@dataclass(frozen=True, slots=True)
class ProviderDetails(Details):
    """A provider of sign-in, its issuer and our client there, and whether this changed its secret."""

    provider: str
    issuer: str
    client: str
    is_secret_changed: bool
    is_enabled: bool
    creates_accounts: bool
    links_by_mail: bool


@dataclass(frozen=True, slots=True)
class ClaimRuleDetails(Details):
    """A rule of a provider: the claim with its value, and what it gives."""

    provider: str
    rule: str


@dataclass(frozen=True, slots=True)
class SignInPolicyDetails(Details):
    """Whether only admins can sign in with a password, after the change."""

    passwords_only_for_admins: bool
