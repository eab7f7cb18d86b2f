"""Protected tags. A registry grants push for a repository, not for a tag, so we check moves afterwards (adr/0007)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import TagsProtected
from lifecycle.authority.access import lock_repository
from lifecycle.authority.rights import may
from lifecycle.core.errors import Malformed
from lifecycle.core.patterns import matches
from lifecycle.core.providers import Question
from lifecycle.registry.constants import PROTECTED_PATTERNS_MAX
from lifecycle.registry.models import Image, Repository, Tag, TagEvent

_TAG_PATTERN: Final = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9._*-]{0,127}")

# Arguments: the target repository, the tag name, the image. The answer is None while a promotion is about to move the
# tag there.
expected_in_target: Final[Question[[Repository, str, Image], bool | None]] = Question(
    "must this tag of a promotion target point at this image?"
)


class MoveVerdict(Enum):
    """The verdict on a tag that points at another image in the registry than in our rows."""

    ALLOWED = auto()
    REFUSED = auto()
    UNNAMED = auto()  # a notification can still name the user who moved it: wait


def judge(tag: Tag, image: Image, *, actor: User | None, via: str, is_settled: bool) -> MoveVerdict:
    """Return whether `tag` is allowed to point at `image`. The caller has locked the tag and its repository.

    A new or deleted tag can be set by any push. Our own workers checked the right before they began. A promotion target
    changes only by promotion. That rule applies to every user, and also to a late worker of ours.
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
    """Return whether one of the repository's patterns matches the tag."""
    return any(matches(pattern, tag.name) for pattern in tag.repository.protected_tags)


@transaction.atomic
def protect_tags(repository_id: int, patterns: Sequence[str], *, actor: User) -> Repository:
    """Replace the repository's protected tag patterns. Only users with image.amend can move matching tags.

    Only users with image.amend can change the patterns. Raises NotFound, NotPermitted, Malformed.
    """
    repository = lock_repository(actor, repository_id, Verb.IMAGE_AMEND)
    if repository.environment_id is not None:
        raise Malformed(
            "Only Gravingdock can push to this repository. Its tags need no protection.", code="promotions_only"
        )
    chosen = sorted(set(patterns))
    if len(chosen) > PROTECTED_PATTERNS_MAX:
        raise Malformed(f"Enter at most {PROTECTED_PATTERNS_MAX} patterns.", code="too_many_patterns")
    for pattern in chosen:
        if not _TAG_PATTERN.fullmatch(pattern):
            raise Malformed("Not a valid tag pattern. Use a tag name. * matches any characters.", got=pattern[:150])
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
