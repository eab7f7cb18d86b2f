"""The rows that many tests begin with: a team with two environments, the people of a promotion, and a request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from django.utils import timezone

from accounts.models import Team
from accounts.queries import system_user
from lifecycle.authority.services import create_environment
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Registry, Repository, RepositoryImage, Tag
from tests.factories.people import person


def make_dock() -> Any:
    """Create shop/api with one scanned image; dev, staging; requester, two approvers, deployer, owner, outsider."""
    team = Team.objects.create(slug="shop", name="Shop")
    registry = Registry.objects.create(name="managed", endpoint="http://localhost:1", is_managed=True)
    repository = Repository.objects.create(registry=registry, team=team, name="shop/api", family="shop/api")
    image = Image.objects.create(
        digest="sha256:" + "a" * 64,
        kind=Image.Kind.MANIFEST,
        media_type="application/vnd.oci.image.manifest.v1+json",
        manifest=b"{}",
        os="linux",
        architecture="amd64",
        scanned_at=timezone.now(),
        package_count=1,
    )
    RepositoryImage.objects.create(repository=repository, image=image)
    Tag.objects.create(repository=repository, name="1.0", image=image, updated_at=timezone.now())
    system = system_user()
    dev, staging = (
        create_environment(team, actor=system, slug=slug, name=slug, prefix=slug, required_approvals=approvals)
        for slug, approvals in (("dev", 0), ("staging", 1))
    )
    return SimpleNamespace(
        team=team,
        repository=repository,
        image=image,
        dev=dev,
        staging=staging,
        requester=person("requester", team, "creator"),
        approver=person("approver", team, "approver"),
        second=person("second", team, "approver"),
        deployer=person("deployer", team, "deployer"),
        owner=person("owner", team, "owner"),
        outsider=person("outsider"),
    )


def make_request(dock: Any) -> PromotionRequest:
    """Create an open request for staging, of the digest that is in dev."""
    slot, _ = services.Slot.objects.get_or_create(repository=dock.repository, environment=dock.dev)
    slot.image = dock.image
    slot.save()
    return services.request_promotion(
        dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="release"
    )
