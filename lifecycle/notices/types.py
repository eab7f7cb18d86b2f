"""What a package says when it tells people about something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from accounts.models import Team, User
from lifecycle.environments.models import Environment
from lifecycle.notices.topics import Topic
from lifecycle.registry.models import Repository


@dataclass(frozen=True, slots=True)
class Telling:
    """One notice to be told. Only people who can see `repository` in `environment` are told.

    Without a repository, it is about all of `team`: only people who can see all its repositories are told. Without
    both, it is about the account of `person`, who alone is told.

    `key` is unique: what has the same key is told once. Notices of one object have the same `thread` and `subject`,
    so that mail programs show them together.
    """

    topic: Topic
    key: str
    thread: str  # promotionrequest-13
    subject: str  # PR-13: shop/api:1.0 to production
    text: str
    link: str  # path of the page
    repository: Repository | None = None
    team: Team | None = None
    person: User | None = None  # exactly one of the three is set
    environment: Environment | None = None
    actor: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)  # for machines: digest, tag, ...
    is_for_channels: bool = True  # False when another notice has told them the same
