"""Details of events about groups of people."""

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
    """A group, and its member: a user, or another group ("" for the other). `source`: manual or sso."""

    group: str
    user: str
    member: str
    source: str
