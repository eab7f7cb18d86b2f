"""Environments of a team in the order of the promotion path, and the slots with their deployed images."""

from __future__ import annotations

from typing import Final

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from accounts.models import TEAM_SLUG, Team
from accounts.verbs import Verb

PREFIX = RegexValidator(r"^[a-z0-9]+(-[a-z0-9]+)*\Z", "One path component: lower-case letters, digits, single hyphens.")
CURRENT_TAG: Final = "current"  # in a target repository, this tag always points to the deployed image


class Environment(models.Model):
    """One step of a team's promotion path. Promoted images are copied below its target prefix.

    `shop/api` promoted to `production` is copied to `<prefix>/shop/api`, with the requested tag and the tag `current`.
    A prefix cannot be the slug of a team, so users cannot push to a target repository (checked by the services).
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="environments")
    slug = models.CharField(max_length=60, validators=[TEAM_SLUG])
    name = models.CharField(max_length=120)
    position = models.IntegerField()  # order on the path: an image reaches position n from position n - 1
    prefix = models.CharField(max_length=60, validators=[PREFIX])
    required_approvals = models.IntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("team", "position")
        default_permissions = ()
        permissions = tuple((verb.codename, f"May {verb.value}") for verb in Verb)
        constraints = (
            models.UniqueConstraint(fields=("team", "slug"), name="environment_once_per_team_and_slug"),
            models.UniqueConstraint(fields=("team", "position"), name="environment_one_per_team_and_position"),
            models.UniqueConstraint(fields=("team", "prefix"), name="environment_one_per_team_and_prefix"),
            models.CheckConstraint(
                condition=Q(required_approvals__gte=0), name="environment_required_approvals_not_negative"
            ),
        )

    def __str__(self) -> str:
        return self.slug


class Slot(models.Model):
    """The deployed image of one family in one environment, and the fencing number of the job that changes it."""

    repository = models.ForeignKey("lifecycle.Repository", on_delete=models.PROTECT, related_name="slots")
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="slots")
    image = models.ForeignKey("lifecycle.Image", on_delete=models.PROTECT, related_name="slots", null=True)
    tag = models.CharField(max_length=128, blank=True)
    since = models.DateTimeField(null=True)
    fence = models.BigIntegerField(default=0)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("repository", "environment"), name="slot_once_per_family_and_environment"),
        )

    def __str__(self) -> str:
        return f"{self.repository} in {self.environment}"
