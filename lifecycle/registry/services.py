"""Create the rows of registries and repositories when they are first used."""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.db import IntegrityError, transaction

from accounts.models import Team
from lifecycle import events
from lifecycle.core.errors import LifecycleError
from lifecycle.core.types import parse_repository_name
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Registry, Repository

MANAGED_NAME: Final = "managed"  # the last part of its webhook URL


class NoOwner(LifecycleError):
    """No team has the slug that the repository name begins with, so no user could see the repository."""

    code = "repository_without_team"
    http_status = 422


def ensure_managed_registry() -> Registry:
    """Return the row of the managed registry. Creates it, or sets its endpoint to REGISTRY_PUBLIC_URL, when needed."""
    row = Registry.objects.filter(is_managed=True).first()
    if row is None:
        try:
            with transaction.atomic():
                row = Registry.objects.create(name=MANAGED_NAME, endpoint=settings.REGISTRY_PUBLIC_URL, is_managed=True)
        except IntegrityError:
            row = Registry.objects.get(is_managed=True)
    if row.endpoint != settings.REGISTRY_PUBLIC_URL:
        row.endpoint = settings.REGISTRY_PUBLIC_URL
        row.save(update_fields=["endpoint"])
    return row


@transaction.atomic
def ensure_repository(registry: Registry, name: str) -> Repository:
    """Return the row of a repository, and create it when it is new. The first part of its name is the team's slug.

    `<prefix>/<family>` is the target of an environment in this registry. It belongs to the team of the source
    repository `<family>`, and the row of that repository is created too, in the managed registry for a target in
    another one. A row that an inventory named before becomes the target. Raises MalformedReference, NoOwner.
    """
    existing = Repository.objects.select_related("team", "registry").filter(registry=registry, name=name).first()
    if existing is not None and (existing.environment_id is not None or not registry.is_added):
        return existing
    parse_repository_name(name)
    prefix, _, rest = name.partition("/")
    environment = None
    if rest:
        rows = Environment.objects.select_related("team").filter(registry=registry if registry.is_added else None)
        environment = rows.filter(prefix=prefix, team__slug=rest.partition("/")[0]).first()
    if existing is not None and environment is None:
        return existing
    team = environment.team if environment else Team.objects.filter(slug=prefix).first()
    if team is None:
        raise NoOwner(f"No team has the slug {prefix}. Create the team first.", repository=name)
    home = ensure_managed_registry() if registry.is_added else registry
    source = ensure_repository(home, rest) if environment else None
    if existing is not None and source is not None:  # without the environment, no crawl would read it
        existing.team, existing.family, existing.source, existing.environment = team, source.family, source, environment
        existing.save(update_fields=["team", "family", "source", "environment"])
        events.publish(events.RepositoriesCreated((existing.pk,)))  # other users have rights there now
        return existing
    row, is_new = Repository.objects.get_or_create(
        registry=registry,
        name=name,
        defaults={
            "team": team,
            "family": source.family if source else name,
            "source": source,
            "environment": environment,
        },
    )
    if is_new:
        events.publish(events.RepositoriesCreated((row.pk,)))
    return row
