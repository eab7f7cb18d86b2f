"""Rows for registries and repositories, made when they are first heard of."""

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

MANAGED_NAME: Final = "managed"  # the last part of its hook's address


class NoOwner(LifecycleError):
    """No team has the slug that the repository's name begins with, so nobody could be shown it."""

    code = "repository_without_team"
    http_status = 422


def ensure_managed_registry() -> Registry:
    """Return the row of the registry we are the token service of, made or moved to REGISTRY_PUBLIC_URL as needed."""
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
    """Return the row of a repository, made when it is new: its team is the first part of its name.

    `<prefix>/<family>` is the target of an environment: it belongs to the family's team, and the family's own row is
    made too. Raises MalformedReference, NoOwner.
    """
    found = Repository.objects.select_related("team", "registry").filter(registry=registry, name=name).first()
    if found is not None:
        return found
    parse_repository_name(name)
    prefix, _, rest = name.partition("/")
    environment = None
    if rest:
        environment = (
            Environment.objects.select_related("team").filter(prefix=prefix, team__slug=rest.partition("/")[0]).first()
        )
    team = environment.team if environment else Team.objects.filter(slug=prefix).first()
    if team is None:
        raise NoOwner(f"No team has the slug {prefix}: make the team first.", repository=name)
    source = ensure_repository(registry, rest) if environment else None
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
