"""Who may move a protected tag: registries know "push", not which tag, so moves are judged afterwards (adr/0007)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action, TagsProtected
from lifecycle.authority.access import lock_repository
from lifecycle.authority.rights import may
from lifecycle.core.errors import Malformed
from lifecycle.core.patterns import matches
from lifecycle.core.providers import Question
from lifecycle.registry.constants import PROTECTED_PATTERNS_MAX
from lifecycle.registry.models import Image, Repository, Tag, TagEvent

_TAG_PATTERN: Final = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9._*-]{0,127}")

# Arguments: the target repository, the name of the tag, the image. None while a promotion is about to make it so.
expected_in_target: Final[Question[[Repository, str, Image], bool | None]] = Question(
    "does this tag of a promotion target have to name this image?"
)


class MoveVerdict(Enum):
    """What is to be made of a tag that points elsewhere in the registry than in our rows."""

    ALLOWED = auto()
    REFUSED = auto()
    UNNAMED = auto()  # who did it may still be named: wait


def judge(tag: Tag, image: Image, *, actor: User | None, via: str, is_settled: bool) -> MoveVerdict:
    """Return whether `tag`, locked with its repository, may come to point at `image`.

    A tag that is new, or was deleted, is nobody's yet. Our own workers asked for the right before they began. A target
    of promotions changes by promotion only, whoever it was: also a worker of ours that came too late.
    """
    if tag.image_id is None or tag.image_id == image.pk or via not in {TagEvent.Via.PUSH, TagEvent.Via.CRAWL}:
        return MoveVerdict.ALLOWED
    if tag.repository.environment_id is not None:
        is_right = expected_in_target.ask(tag.repository, tag.name, image)
        return MoveVerdict.UNNAMED if is_right is None else MoveVerdict.ALLOWED if is_right else MoveVerdict.REFUSED
    if not is_protected(tag):
        return MoveVerdict.ALLOWED
    if actor is None:
        return MoveVerdict.REFUSED if is_settled else MoveVerdict.UNNAMED
    if actor.kind == User.Kind.SYSTEM:
        return MoveVerdict.ALLOWED
    repository = tag.repository
    decision = may(actor, Verb.IMAGE_AMEND, repository=repository, environment=repository.environment)
    return MoveVerdict.ALLOWED if decision else MoveVerdict.REFUSED


def is_protected(tag: Tag) -> bool:
    """Whether one of the repository's patterns covers the tag."""
    return any(matches(pattern, tag.name) for pattern in tag.repository.protected_tags)


@transaction.atomic
def protect_tags(repository_id: int, patterns: Sequence[str], *, actor: User) -> Repository:
    """Let only those who hold image.amend move the tags that match one of `patterns`, and nobody's list but this.

    Whoever may move such tags says which they are. Raises NotFound, NotPermitted, Malformed.
    """
    repository = lock_repository(actor, repository_id, Verb.IMAGE_AMEND)
    if repository.environment_id is not None:
        raise Malformed("Nobody pushes here but Gravingdock: there is nothing to protect.", code="promotions_only")
    chosen = sorted(set(patterns))
    if len(chosen) > PROTECTED_PATTERNS_MAX:
        raise Malformed(f"More than {PROTECTED_PATTERNS_MAX} patterns.", code="too_many_patterns")
    for pattern in chosen:
        if not _TAG_PATTERN.fullmatch(pattern):
            raise Malformed("A pattern is a tag in which * stands for any run of characters.", got=pattern[:150])
    if chosen != repository.protected_tags:
        before, repository.protected_tags = repository.protected_tags, chosen
        repository.save(update_fields=["protected_tags"])
        audit.record(
            Action.REPOSITORY_TAGS_PROTECTED,
            actor=actor,
            subject=repository,
            repository=repository,
            details=TagsProtected(before=tuple(before), patterns=tuple(chosen)),
        )
    return repository
