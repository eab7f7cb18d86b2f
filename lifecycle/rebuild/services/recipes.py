"""Store the recipe of a repository."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from django.db import transaction
from django.db.models import Q

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import RecipeChanged
from lifecycle.authority.access import lock_repository, repository_for
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core.errors import Malformed
from lifecycle.core.reasons import refuse_if
from lifecycle.core.types import parse_tag
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.rebuild import contexts
from lifecycle.rebuild.containerfile import base_references, split_reference
from lifecycle.rebuild.models import Recipe
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository

CONTAINERFILE_MAX: Final = 256 * 1024  # characters
_ARGUMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def put_recipe(
    repository_id: int,
    *,
    actor: User,
    containerfile: str,
    context: Mapping[str, bytes] | None = None,
    build_args: Mapping[str, str] | None = None,
    tag: str = "latest",
) -> Recipe:
    """Store a recipe as the current one. Returns the new revision, or the last one when nothing changed.

    The context is pushed into the repository first, as an artifact. `actor` needs `recipe.manage`, because a
    builder runs what a recipe says.

    Raises NotFound, NotPermitted, Malformed, Quarantined, RegistryUnavailable.
    """
    repository = repository_for(actor, repository_id, Verb.RECIPE_MANAGE)
    if repository.source_id is not None:
        raise Malformed("Only promotions write to this repository. Store the recipe in its source repository.")
    parse_tag(tag)
    if len(containerfile) > CONTAINERFILE_MAX or "\0" in containerfile:
        raise Malformed(f"A recipe is text without NUL, of at most {CONTAINERFILE_MAX} characters.")
    arguments = checked_arguments(build_args or {})
    references = base_references(containerfile, arguments)
    _refuse_quarantined(repository, references, actor)
    digest = contexts.store(client_for(repository.registry), repository.name, context) if context else ""
    values = {"containerfile": containerfile, "context_digest": digest, "build_args": arguments, "tag": tag}
    with transaction.atomic():
        repository = lock_repository(actor, repository_id, Verb.RECIPE_MANAGE)
        last = Recipe.objects.filter(repository=repository).order_by("-revision").first()
        if last is not None and all(getattr(last, name) == value for name, value in values.items()):
            return last
        recipe = Recipe.objects.create(
            repository=repository, revision=last.revision + 1 if last else 1, base_references=references,
            author=actor, **values,
        )  # fmt: skip
        audit.record(
            Action.RECIPE_CHANGED, actor=actor, subject=recipe, repository=repository, team=repository.team,
            details=RecipeChanged(revision=recipe.revision),
        )  # fmt: skip
    return recipe


def _refuse_quarantined(repository: Repository, references: Iterable[str], actor: User) -> None:
    """Raise Quarantined when a base of the recipe that `actor` can see is quarantined now. Each build checks again."""
    for reference in references:
        name, tag_or_digest = split_reference(reference)
        base = repositories_visible_to(actor).filter(registry=repository.registry_id, name=name).first()
        if base is None:
            continue
        held = Image.objects.filter(repository_images__repository=base, repository_images__removed_at=None)
        is_named = Q(digest=tag_or_digest) if ":" in tag_or_digest else Q(tags__name=tag_or_digest)
        is_here = Q(tags__repository=base) if ":" not in tag_or_digest else Q()
        for image in held.filter(is_named & is_here).distinct():
            refuse_if(why_quarantined(image))


def checked_arguments(build_args: Mapping[str, str]) -> dict[str, str]:
    """Return build arguments as they are stored; raises Malformed for an invalid name or value."""
    for name, value in build_args.items():
        if not _ARGUMENT.fullmatch(name) or any(ord(c) < 32 for c in value):
            raise Malformed("A build argument needs a valid name and a value on one line.", argument=name[:60])
    return dict(build_args)
