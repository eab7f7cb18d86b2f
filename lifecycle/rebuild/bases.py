"""The base images that one job of a wave builds on, each pinned to a digest."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Case, Value, When

from accounts.models import User
from lifecycle.authority.queries import repositories_open_to
from lifecycle.core.errors import NotFound
from lifecycle.oci.client import RegistryClient
from lifecycle.rebuild import queries
from lifecycle.rebuild.containerfile import split_reference
from lifecycle.rebuild.graph import tags_of
from lifecycle.rebuild.models import RebuildJob, Recipe
from lifecycle.registry.models import Image, RepositoryImage, Tag
from lifecycle.registry.platforms import platforms_of


def bases_of(client: RegistryClient, job: RebuildJob, recipe: Recipe | None, *, actor: User) -> dict[str, str]:
    """Return {reference in the recipe: repository@digest}; without a recipe, the recorded base or {}.

    Images of this wave have priority, so that a base that moves again during the wave does not affect it. Other
    references are resolved in the registry. Raises NotFound for a base that is absent or that the author of the recipe
    cannot see.
    """
    if recipe is None or not recipe.base_references:
        return recorded_base(job, actor)
    updated = {
        (parent.repository.name, parent.tag): parent.new_image or parent.old_image
        for parent in job.parents.select_related("repository", "new_image", "old_image")
    }
    base = job.wave.repository
    base_tags = tags_of(base, job.wave.new_base)
    author = recipe.author if recipe.author.is_active else actor
    pinned = {}
    for reference in recipe.base_references:
        name, tag_or_digest = split_reference(reference)
        image = updated.get((name, tag_or_digest))
        if image is None and name == base.name and tag_or_digest in base_tags:
            image = job.wave.new_base
        if image is None:
            resolved = client.resolve(name, tag_or_digest)
            image = Image.objects.filter(digest=resolved.digest.text).first() if resolved is not None else None
        visible = repositories_open_to(author).filter(registry=job.repository.registry_id, name=name)
        if image is None or not visible.exists():
            raise NotFound(f"The base {reference} is not in the registry, or the author of the recipe cannot see it.")
        pinned[reference] = f"{name}@{_platform_of(image, job.old_image).digest}"
    return pinned


def recorded_base(job: RebuildJob, actor: User) -> dict[str, str]:
    """Return {repository: repository@digest} of the current state of the old image's recorded base; {} for no base.

    Outside the wave, only repositories that `actor` can see count, those of the image's team first. Another repository
    that once had the same base can have an unrelated image under that tag now.
    """
    old_base = queries.base_by_layers(first_platform(job.old_image))
    if old_base is None:
        return {}
    holders = set(RepositoryImage.objects.filter(image=old_base).values_list("repository_id", flat=True))
    for parent in job.parents.select_related("repository", "new_image", "old_image").order_by("-level"):
        if parent.repository_id in holders:
            name, image = parent.repository.name, parent.new_image or parent.old_image
            return {name: f"{name}@{_platform_of(image, job.old_image).digest}"}
    if job.wave.repository_id in holders:
        name = job.wave.repository.name
        return {name: f"{name}@{_platform_of(job.wave.new_base, job.old_image).digest}"}
    # The base was updated before this wave, in a repository that is not part of it.
    visible = repositories_open_to(actor).filter(pk__in=holders, registry=job.repository.registry_id, source=None)
    moved = Tag.objects.filter(repository__in=visible, image__isnull=False, events__new_image=old_base)
    own_first = Case(When(repository__team=job.repository.team_id, then=Value(0)), default=Value(1))
    tags = moved.exclude(image=old_base).select_related("repository", "image")
    tag = tags.order_by(own_first, "repository__name", "pk").first()
    if tag is None or tag.image is None:
        return {}
    return {tag.repository.name: f"{tag.repository.name}@{_platform_of(tag.image, job.old_image).digest}"}


def has_changed_base(job: RebuildJob, pinned: Iterable[str]) -> bool:
    """Return whether any base of the job has changed: the wave's own base, or an updated parent.

    `pinned` are references `repository@digest`. The result is True for a job without parents, because it is in the wave
    for its changed base.
    """
    parents = list(job.parents.all())
    new_digests = {image.digest for image in platforms_of(job.wave.new_base)}
    uses_new_base = any(reference.partition("@")[2] in new_digests for reference in pinned)
    return not parents or uses_new_base or any(parent.has_new_image for parent in parents)


def first_platform(image: Image) -> Image:
    """Return the first platform manifest of an index, or the image itself."""
    return (platforms_of(image) or [image])[0]


def _platform_of(image: Image, like: Image) -> Image:
    """Return the manifest of `image` for the platform of `like`, or its only manifest; raises NotFound."""
    platforms = platforms_of(image)
    platform_name = first_platform(like).platform
    matching = [platform for platform in platforms if platform.platform == platform_name] or platforms[
        : len(platforms) == 1
    ]
    if not matching:
        raise NotFound(f"{image.short_digest} has no image for {platform_name or 'any platform'}.")
    return matching[0]
