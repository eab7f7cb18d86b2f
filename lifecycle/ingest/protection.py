"""Who may move a protected tag: registries know "push", not which tag, so moves are judged afterwards (adr/0007)."""

from __future__ import annotations

from enum import Enum, auto

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority import rights as access
from lifecycle.promotion.queries import target_names
from lifecycle.registry.models import Image, Tag, TagEvent


class Verdict(Enum):
    """What is to be made of a tag that points elsewhere in the registry than in our rows."""

    ALLOWED = auto()
    REFUSED = auto()
    UNNAMED = auto()  # who did it may still be named: wait


def judge(tag: Tag, image: Image, *, actor: User | None, via: str, is_settled: bool) -> Verdict:
    """Return whether `tag`, locked with its repository, may come to point at `image`.

    A tag that is new, or was deleted, is nobody's yet. Our own workers asked for the right before they began. A target
    of promotions changes by promotion only, whoever it was: also a worker of ours that came too late.
    """
    if tag.image_id is None or tag.image_id == image.pk or via not in {TagEvent.Via.PUSH, TagEvent.Via.CRAWL}:
        return Verdict.ALLOWED
    if tag.repository.environment_id is not None:
        is_right = target_names(tag.repository, tag.name, image)
        return Verdict.UNNAMED if is_right is None else Verdict.ALLOWED if is_right else Verdict.REFUSED
    if not is_protected(tag):
        return Verdict.ALLOWED
    if actor is None:
        return Verdict.REFUSED if is_settled else Verdict.UNNAMED
    if actor.kind == User.Kind.SYSTEM:
        return Verdict.ALLOWED
    repository = tag.repository
    decision = access.may(actor, Verb.IMAGE_AMEND, repository=repository, environment=repository.environment)
    return Verdict.ALLOWED if decision else Verdict.REFUSED


def is_protected(tag: Tag) -> bool:
    """Whether one of the repository's patterns covers the tag."""
    return any(access.matches(pattern, tag.name) for pattern in tag.repository.protected_tags)
