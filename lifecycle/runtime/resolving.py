"""From digests and names in reports to images and repositories of ours. Digests decide; the name says whose it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import Q

from lifecycle.core.errors import MalformedReference
from lifecycle.core.image_names import ImageName, parse_image_name
from lifecycle.registry.models import Image, IndexEntry, Registry, Repository

_ARCHITECTURES: Final[Mapping[str, str]] = {"aarch64": "arm64", "x86_64": "amd64"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a container says about its image."""

    digests: tuple[str, ...]
    reference: str
    arch: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """What we know of it. `image_id`: the index if there is one, else the manifest; `platform_id`: the manifest."""

    digest: str
    image_id: int | None
    platform_id: int | None
    repository_id: int | None


def resolve(wanted: Collection[Wanted]) -> dict[Wanted, Resolved]:
    """Return what is known of each. A fixed number of queries for any number."""
    digests = sorted({digest for each in wanted for digest in each.digests})
    repositories = repositories_called({each.reference for each in wanted})
    known = _Known(digests)
    return {each: known.resolved(each, repositories.get(each.reference)) for each in wanted}


class _Known:
    """The images of ours with one of these digests, as digest of an index, a manifest or a configuration."""

    def __init__(self, digests: Collection[str]) -> None:
        images = Image.objects.filter(Q(digest__in=digests) | Q(config_digest__in=digests))
        images = images.exclude(kind=Image.Kind.ARTIFACT).order_by("pk")
        self.by_digest: dict[str, tuple[int, str]] = {}
        self.by_config: dict[str, list[int]] = defaultdict(list)
        self.names: dict[int, str] = {}
        for pk, digest, config, kind in images.values_list("pk", "digest", "config_digest", "kind"):
            self.by_digest[digest], self.names[pk] = (pk, kind), digest
            if config:
                self.by_config[config].append(pk)
        self.children = _children([pk for pk, kind in self.by_digest.values() if kind == Image.Kind.INDEX])

    def resolved(self, wanted: Wanted, repository_id: int | None) -> Resolved:
        """Return the index and the manifest that a container runs, as far as they are known."""
        known = [self.by_digest[digest] for digest in wanted.digests if digest in self.by_digest]
        configs = [pk for digest in wanted.digests for pk in self.by_config.get(digest, ())]
        index = next((pk for pk, kind in known if kind == Image.Kind.INDEX), None)
        manifest = next((pk for pk, kind in known if kind != Image.Kind.INDEX), None)
        if manifest is None and index is not None:
            manifest = self._inside(index, configs, _ARCHITECTURES.get(wanted.arch, wanted.arch))
        elif manifest is None and configs:
            manifest = configs[0]
        image_id = index if index is not None else manifest
        digest = self.names[image_id] if image_id is not None else (wanted.digests[0] if wanted.digests else "")
        return Resolved(digest, image_id, manifest, repository_id)

    def _inside(self, index: int, configs: Collection[int], arch: str) -> int | None:
        """Return which manifest of an index runs: by its configuration, else the node's platform, else the only one."""
        children = self.children.get(index, [])
        by_id = [pk for pk, _ in children if pk in configs]
        fitting = [pk for pk, each in children if not arch or each == arch]
        if by_id:
            return by_id[0]
        return fitting[0] if fitting and (arch or len(fitting) == 1) else None


def _children(indexes: Iterable[int]) -> Mapping[int, list[tuple[int, str]]]:
    """Return {index id: [(manifest id, architecture)]}, without attestations."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    rows = IndexEntry.objects.filter(index__in=list(indexes)).exclude(child__kind=Image.Kind.ARTIFACT)
    rows = rows.exclude(platform__startswith="unknown").order_by("position")
    for index_id, child_id, arch in rows.values_list("index_id", "child_id", "child__architecture"):
        found[index_id].append((child_id, arch))
    return found


def repositories_called(references: Collection[str]) -> dict[str, int]:
    """Return {reference: id of the repository of ours with this name}."""
    hosts = registry_hosts()
    names: dict[str, tuple[int, str]] = {}
    for reference in references:
        name = image_name(reference)
        if name is not None and name.host in hosts:
            names[reference] = (hosts[name.host], name.repository)
    rows = Repository.objects.filter(name__in={name for _, name in names.values()})
    ids = {(registry, name): pk for pk, registry, name in rows.values_list("pk", "registry", "name")}
    return {reference: ids[place] for reference, place in names.items() if place in ids}


def is_known_home(repository: Repository, team_ids: Collection[int]) -> bool:
    """Return whether these teams may know what a repository has: it is theirs, or open to all (docs/adr/0019)."""
    return repository.team_id in team_ids or repository.visibility != Repository.Visibility.PRIVATE


def image_name(reference: str) -> ImageName | None:
    """Return a reference in its parts; None for what is no image name."""
    try:
        return parse_image_name(reference)
    except MalformedReference:
        return None


def registry_hosts() -> dict[str, int]:
    """Return {host[:port] by which containers name a registry of ours: its id}."""
    hosts = {}
    for registry in Registry.objects.all():
        hosts[registry.host.lower()] = registry.pk
        if registry.is_managed:
            hosts[urlsplit(settings.REGISTRY_PUBLIC_URL).netloc.lower()] = registry.pk
            hosts[urlsplit(settings.REGISTRY_URL).netloc.lower()] = registry.pk
    return hosts
