"""Reads of repositories, images and tags that several callers share: joins chosen, ready for keyset pages."""

from __future__ import annotations

from django.db.models import OuterRef, Prefetch, QuerySet, Subquery

from accounts.models import User
from lifecycle.authority.queries import images_visible_to, repositories_visible_to
from lifecycle.registry.models import Image, IndexEntry, Layer, Registry, Repository, RepositoryImage, Tag, TagEvent


def repositories_with_latest_tag(actor: User) -> QuerySet[Repository]:
    """Return the repositories `actor` sees, with team and registry, and `latest_tag` and `latest_digest` as texts.

    Page by (-updated_at, -id), which has an index.
    """
    newest = Tag.objects.filter(repository=OuterRef("pk"), image__isnull=False).order_by("-updated_at", "-pk")
    return (
        repositories_visible_to(actor)
        .select_related("team", "registry", "environment")
        .annotate(
            latest_tag=Subquery(newest.values("name")[:1]), latest_digest=Subquery(newest.values("image__digest")[:1])
        )
    )


def images_of(actor: User) -> QuerySet[Image]:
    """Return the images (no artifacts) `actor` sees, without the heavy columns; page by -id."""
    return images_visible_to(actor).exclude(kind=Image.Kind.ARTIFACT).defer("manifest", "config")


def images_in(repository: Repository) -> QuerySet[RepositoryImage]:
    """Return what people pushed into a repository and is still there, with each image's live tags here; by -id."""
    here = Tag.objects.filter(repository=repository)
    return (
        RepositoryImage.objects.filter(repository=repository, removed_at=None, is_top_level=True)
        .exclude(image__kind=Image.Kind.ARTIFACT)
        .select_related("image", "pushed_by")
        .defer("image__manifest", "image__config")
        .prefetch_related(Prefetch("image__tags", queryset=here, to_attr="tags_here"))
    )


def tags_in(repository: Repository) -> QuerySet[Tag]:
    """Return the live tags with their images; page by (-updated_at, -id). Referrer tags never have rows."""
    live = Tag.objects.filter(repository=repository, image__isnull=False)
    return live.select_related("image").defer("image__manifest", "image__config")


def tag_history(tag: Tag) -> QuerySet[TagEvent]:
    """Return where a tag pointed, newest first by -id."""
    return TagEvent.objects.filter(tag=tag).select_related("old_image", "new_image", "actor").order_by("-pk")


def platforms_of(image: Image) -> list[Image]:
    """Return the platform manifests that an image means: itself, or the runnable children of an index, in order."""
    if image.kind != Image.Kind.INDEX:
        return [image] if image.kind == Image.Kind.MANIFEST else []
    found: list[Image] = []
    entries = IndexEntry.objects.filter(index=image).select_related("child").order_by("position")
    for entry in entries:
        if entry.child.kind == Image.Kind.INDEX and entry.child != image:
            found.extend(platforms_of(entry.child))
        elif entry.child.kind == Image.Kind.MANIFEST and not entry.platform.startswith("unknown"):
            found.append(entry.child)
    return found


def layers_of(image: Image) -> QuerySet[Layer]:
    """Return the layers of a platform manifest, base first."""
    return Layer.objects.filter(image=image).order_by("position")


def place_to_pull(image: Image) -> tuple[Registry, str] | None:
    """Return (registry, repository name) from which our own workers can pull an image now, None when nowhere."""
    member = (
        RepositoryImage.objects.filter(image=image, removed_at=None)
        .select_related("repository__registry")
        .order_by("-repository__registry__is_managed", "pk")
        .first()
    )
    return (member.repository.registry, member.repository.name) if member is not None else None
