"""Search. Each kind of thing is asked only for texts that can name it, by index, and only where the reader can see it.

A name is found by its beginning; a repository also by the beginning of each word in its name ("api" finds shop/api).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from django.contrib.postgres.search import SearchQuery
from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import User
from lifecycle.advisories.models import Advisory
from lifecycle.advisories.queries import named_by
from lifecycle.authority.queries import images_visible_to, repositories_open_to
from lifecycle.promotion.queries import promotions_visible_to
from lifecycle.promotion.release_queries import sets_visible_to
from lifecycle.quarantine.queries import covers_of, quarantines_visible_to
from lifecycle.rebuild.queries import waves_visible_to
from lifecycle.registry.models import Image, Metadata, Repository, Tag, words_of_name
from lifecycle.registry.queries import given_by_people, images_held_in, locations_of
from lifecycle.sbom.models import ImageInventory, InventoryPackage, PackageVersion
from lifecycle.search.types import Hit

TEXT_MAX: Final = 300  # characters; a repository name has at most 255, a digest 135
PER_KIND: Final = 8
_PACKAGES_LOOKED_AT: Final = 40  # package names with the same beginning, of which the reader may see few
_LAST: Final = "\uffff"  # sorts behind every character of a name
_NUMBER: Final = re.compile(r"(?i)(?:(pr|rs|w|q)[- ]?|#)?([0-9]{1,18})")
_DIGEST: Final = re.compile(r"(?i)(?:(sha256|sha512):)?([0-9a-f]{6,128})")
_WORDS: Final = re.compile(r"[a-z0-9]+")


def search(actor: User, text: str) -> list[Hit]:
    """Return what `text` can mean among the things that `actor` can see, at most PER_KIND of each kind.

    `text` is a part of a repository name, a tag ("1.0", "shop/api:1.0"), a digest (also its first 6 digits or more), a
    package, an advisory or alias, metadata ("owner=kim"), a request ("PR-13"), a release set
    ("RS-4"), a wave ("W-2") or a
    quarantine ("Q-3"). At most 20 queries.
    "" finds nothing.
    """
    text = " ".join(text.replace("\0", "").split()).strip(" …")[:TEXT_MAX]
    if not text:
        return []
    visible = repositories_open_to(actor)
    hits: list[Hit] = []
    if found := _NUMBER.fullmatch(text):
        hits += _numbered(actor, (found[1] or "").lower(), int(found[2]))
    if found := _DIGEST.fullmatch(text.rpartition("@")[2]):
        hits += _images(actor, visible, (found[1] or "").lower(), found[2].lower())
    if text.lower().startswith(("sha256:", "sha512:")):
        return hits
    if "=" in text:
        hits += _metadata(visible, text)
    hits += _repositories(visible, text)
    hits += _tags(visible, text)
    if len(text) > 1:
        hits += _advisories(text)
        hits += _packages(visible, text)
    return hits


def _starts(field: str, text: str) -> Q:
    """Return the condition that `field` begins with `text`, as a range of its index."""
    return Q(**{f"{field}__gte": text, f"{field}__lt": text + _LAST, f"{field}__startswith": text})


def _numbered(actor: User, prefix: str, number: int) -> list[Hit]:
    hits = []
    if prefix in {"", "pr"}:
        request = promotions_visible_to(actor).filter(pk=number).first()
        if request is not None:
            to = f"{request.repository.name} {request.tag} to {request.environment.slug}, {request.get_state_display()}"
            hits.append(Hit("request", str(request), to.rstrip(), "lifecycle:promotion", (request.pk,)))
    if prefix == "rs":
        found = sets_visible_to(actor).filter(pk=number).first()
        if found is not None:
            about = f"{found.size} repositories to {found.environment.slug}, {found.get_state_display()}"
            hits.append(Hit("release set", str(found), about, "lifecycle:release-set", (found.pk,)))
    if prefix in {"", "w"}:
        wave = waves_visible_to(actor).filter(pk=number).first()
        if wave is not None:
            about = f"rebuilds on {wave.repository.name}, {wave.get_state_display()}"
            hits.append(Hit("wave", str(wave), about, "lifecycle:wave", (wave.pk,)))
    if prefix in {"", "q"}:
        row = quarantines_visible_to(actor).filter(pk=number).first()
        if row is not None:
            about = f"{row.get_state_display()}: {row.reason[:80]}"
            hits.append(Hit("quarantine", str(row), about, "lifecycle:quarantine", (row.pk,)))
    return hits


def _images(actor: User, visible: QuerySet[Repository], algorithm: str, digits: str) -> list[Hit]:
    condition = Q()
    for name in [algorithm] if algorithm else ["sha256", "sha512"]:
        start = f"{name}:{digits}"
        condition |= Q(digest__gte=start, digest__lt=f"{start}g", digest__startswith=start)
    rows = images_visible_to(actor).filter(condition).exclude(kind=Image.Kind.ARTIFACT)
    images = list(rows.only("digest").order_by("digest")[:PER_KIND])
    places = locations_of([image.pk for image in images], visible)
    covered = covers_of([image.pk for image in images])
    return [
        Hit(
            "image", image.short_digest, place.label + (", quarantined" if image.pk in covered else ""),
            "lifecycle:image",
            (place.repository.team.slug, place.repository.name, image.digest),
        )
        for image in images
        if (place := places.get(image.pk)) is not None
    ]  # fmt: skip


def image_named(actor: User, visible: QuerySet[Repository], text: str, *, near: str = "") -> Image | None:
    """Return the one image that `text` names among those that `actor` can see; None for none or several.

    `text` is a digest (also its first 6 digits or more), `repository:tag`, `repository@digest`, or a tag of `near`.
    """
    if found := _DIGEST.fullmatch(text.rpartition("@")[2].strip(" …")):
        images = _images(actor, visible, (found[1] or "").lower(), found[2].lower())
        if len(images) == 1:
            return Image.objects.filter(digest=images[0].page_args[-1]).first()
    repository, _, tag = text.rpartition(":")
    rows = Tag.objects.filter(repository__in=visible, repository__name=repository or near, name=tag)
    named = rows.exclude(image=None).select_related("image").order_by("-repository__registry__is_managed", "pk").first()
    return named.image if named is not None else None


def _repositories(visible: QuerySet[Repository], text: str) -> list[Hit]:
    words = _WORDS.findall(text.lower().partition("@")[0])
    if not words:
        return []
    query = SearchQuery(" & ".join(f"{word}:*" for word in words), search_type="raw", config="simple")
    rows = visible.select_related("team").alias(words=words_of_name()).filter(words=query)
    found = rows.order_by("-updated_at", "-id")[:PER_KIND]
    named = visible.select_related("team").filter(name=text.lower())[:1]
    unique = {row.pk: row for row in [*named, *found]}
    return [
        Hit("repository", row.name, row.description, "lifecycle:repository", (row.team.slug, row.name))
        for row in unique.values()
    ][:PER_KIND]


def _tags(visible: QuerySet[Repository], text: str) -> list[Hit]:
    repository, _, name = text.rpartition(":")
    rows = given_by_people(Tag.objects.filter(repository__in=visible, image__isnull=False))
    rows = rows.filter(_starts("name", name))
    if repository:
        rows = rows.filter(Q(repository__name=repository) | Q(repository__name__endswith=f"/{repository}"))
    tags = rows.select_related("repository__team", "image").defer("image__manifest", "image__config")
    found = list(tags.order_by("name", "-updated_at", "-id")[:PER_KIND])
    covered = covers_of([tag.image_id for tag in found if tag.image_id is not None]) if found else {}
    return [
        Hit(
            "tag", f"{tag.repository.name}:{tag.name}",
            tag.image.short_digest + (", quarantined" if tag.image_id in covered else ""), "lifecycle:image",
            (tag.repository.team.slug, tag.repository.name, tag.image.digest),
        )
        for tag in found
        if tag.image is not None and tag.image.kind != Image.Kind.ARTIFACT
    ]  # fmt: skip


def _metadata(visible: QuerySet[Repository], text: str) -> list[Hit]:
    """Return the repositories and images with the metadata `key=value`, or `key=` and the beginning of the value."""
    key, _, value = text.partition("=")
    rows = Metadata.objects.filter(repository__in=visible, key=key.strip(), value__istartswith=value.strip())
    hits = []
    for row in rows.select_related("repository__team", "image").order_by("-pk")[:PER_KIND]:
        place = (row.repository.team.slug, row.repository.name)
        if row.image is None:
            hits.append(Hit("repository", row.repository.name, str(row), "lifecycle:repository", place))
        else:
            name = f"{row.repository.name}@{row.image.short_digest}"
            hits.append(Hit("image", name, str(row), "lifecycle:image", (*place, row.image.digest)))
    return hits


def _spellings(text: str) -> list[str]:
    """Return how feeds write an id: as typed, in capitals, and GHSA ids with small letters behind the prefix."""
    head, dash, tail = text.partition("-")
    return list(dict.fromkeys([text, text.upper(), head.upper() + dash + tail.lower()]))


def _advisories(text: str) -> list[Hit]:
    """Return the advisories with an id that begins with `text`, or an alias that is `text`, the id itself first."""
    named: QuerySet[Advisory] = Advisory.objects.filter(withdrawn_at=None, tombstoned_at=None)
    fields = ("osv_id", "summary", "aliases", "upstream")
    rows: list[dict[str, Any]] = []
    for spelling in _spellings(text):
        rows += named.filter(_starts("osv_id", spelling)).order_by("osv_id").values(*fields)[:PER_KIND]
    for spelling in _spellings(text)[:2]:
        rows += named.filter(pk__in=named_by(spelling)).order_by("osv_id").values(*fields)[:PER_KIND]
    unique = {row["osv_id"]: row for row in rows}
    return [Hit("advisory", osv_id, _about(row), "lifecycle:advisory", (osv_id,)) for osv_id, row in unique.items()][
        :PER_KIND
    ]


def _about(row: dict[str, Any]) -> str:
    others = ", ".join([*row["aliases"], *row["upstream"]][:3])
    return " · ".join(part for part in (others, row["summary"][:140]) if part)


def _packages(visible: QuerySet[Repository], text: str) -> list[Hit]:
    """Return the packages in visible images whose name begins with `text`, or that are built from the source `text`."""
    names = PackageVersion.objects.filter(_starts("name", text.lower()) | Q(name=text) | Q(source_name=text.lower()))
    rows = names.order_by("name", "type", "source_name").values_list("type", "name", "source_name").distinct()
    triples = list(rows[:_PACKAGES_LOOKED_AT])
    if not triples:
        return []
    seen = names.filter(name__in={name for _, name, _ in triples})
    held = carriers(visible).filter(inventory__inventory_packages__package=OuterRef("pk"))
    shown = set(seen.filter(Exists(held)).values_list("type", "name").distinct())
    hits = {}
    for kind, name, source in triples:
        if (kind, name) in shown and (kind, name) not in hits:
            detail = f"{kind} package" + (f", source {source}" if source and source != name else "")
            hits[kind, name] = Hit("package", name, detail, "lifecycle:package", (kind, name))
    return list(hits.values())[:PER_KIND]


def carriers(visible: QuerySet[Repository]) -> QuerySet[ImageInventory]:
    """Return the inventories of images in `visible` repositories."""
    return ImageInventory.objects.filter(image__in=images_held_in(visible))


def images_with_packages_seen(actor: User, package_ids: Iterable[int]) -> QuerySet[Image]:
    """Return the images that `actor` can see with one of these package versions; page them by -id."""
    inventories = InventoryPackage.objects.filter(package__in=package_ids).values("inventory")
    carrying = ImageInventory.objects.filter(inventory__in=inventories).values("image")
    return images_visible_to(actor).filter(pk__in=carrying).defer("manifest", "config")
