"""Environments of a team in the order of the promotion path, and the slots with their deployed images."""

from __future__ import annotations

from typing import Any, Final

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from accounts.models import TEAM_SLUG, Role, Team, User
from accounts.verbs import Verb
from lifecycle.core import sealing

PREFIX = RegexValidator(r"^[a-z0-9]+(-[a-z0-9]+)*\Z", "One path component: lower-case letters, digits, single hyphens.")
CURRENT_TAG: Final = "current"  # in a target repository, this tag always points to the deployed image
DAY_S: Final = 86_400
APPROVE_WITHIN_S: Final = 7 * DAY_S
VERIFY_WITHIN_S: Final = 3600
EXECUTE_WITHIN_S: Final = 3 * DAY_S  # outside production
EXECUTE_WITHIN_IN_PRODUCTION_S: Final = DAY_S


class Environment(models.Model):
    """One step of a team's promotion path. Promoted images are copied below its target prefix.

    `shop/api` promoted to `production` is copied to `<prefix>/shop/api`, with the requested tag and the tag `current`.
    A prefix cannot be the slug of a team, so users cannot push to a target repository (checked by the services).
    """

    class Verification(models.TextChoices):
        NONE = "none"  # a checked copy has succeeded
        MANUAL = "manual"  # somebody says whether it works
        HTTP = "http"  # a service answers, with a signed reply

    class QueuePolicy(models.TextChoices):
        QUEUE = "queue"  # ready requests run one after another
        LATEST_WINS = "latest-wins"  # a newer ready request supersedes older ones

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="environments")
    slug = models.CharField(max_length=60, validators=[TEAM_SLUG])
    name = models.CharField(max_length=120)
    position = models.IntegerField()  # order on the path: an image reaches position n from position n - 1
    prefix = models.CharField(max_length=60, validators=[PREFIX])
    # Where promoted images are copied to; null: the registry of the source repository, which is the managed one.
    registry = models.ForeignKey(
        "lifecycle.Registry", on_delete=models.PROTECT, related_name="environments", null=True, blank=True
    )
    required_approvals = models.IntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)

    is_production = models.BooleanField(default=False)  # what "production" means, everywhere
    is_internet_facing = models.BooleanField(default=False, db_default=False)  # due dates can be earlier there
    approve_within_s = models.PositiveIntegerField(default=APPROVE_WITHIN_S)  # an open request expires after this
    execute_within_s = models.PositiveIntegerField(default=EXECUTE_WITHIN_S)  # a ready request expires after this
    soak_s = models.PositiveIntegerField(default=0)  # how long an image stays in the previous environment first
    queue_policy = models.CharField(max_length=12, choices=QueuePolicy, default=QueuePolicy.QUEUE)
    auto_execute = models.BooleanField(default=False)  # a ready request runs without a user
    # What happens after the copy, until the promotion has succeeded.
    verification = models.CharField(max_length=6, choices=Verification, default=Verification.NONE)
    verify_url = models.CharField(max_length=500, blank=True)
    verify_secret_sealed = models.BinaryField(default=b"")  # shared with the service; signs the call and its reply
    verify_within_s = models.PositiveIntegerField(default=VERIFY_WITHIN_S)  # later, the promotion has failed
    rolls_back = models.BooleanField(default=False)  # request a rollback when the verification fails
    # Users who cannot approve a request, admins included. Each can be allowed by setting its field to False.
    excludes_requester = models.BooleanField(default=True)
    excludes_build_trigger = models.BooleanField(default=True)
    excludes_committer = models.BooleanField(default=True)
    excludes_policy_author = models.BooleanField(default=True)
    # Only approvals that their voters signed with a passkey count.
    requires_signed_votes = models.BooleanField(default=False, db_default=False)
    revision = models.PositiveIntegerField(default=1)  # counts the changes of settings and approval rules
    unsatisfiable_since = models.DateTimeField(null=True, blank=True)  # too few people are left for its approvals
    archived_at = models.DateTimeField(null=True, blank=True)  # since then, nothing is promoted to it

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
            models.CheckConstraint(
                condition=Q(queue_policy__in=("queue", "latest-wins")), name="environment_queue_policy_known"
            ),
            models.CheckConstraint(
                condition=Q(verification__in=("none", "manual")) | (Q(verification="http") & ~Q(verify_url="")),
                name="environment_verification_known_and_complete",
            ),
        )

    def __str__(self) -> str:
        return self.slug

    @property
    def is_archived(self) -> bool:
        """Whether nothing can be promoted to it. It keeps what it holds, and is no step of the path any more."""
        return self.archived_at is not None


sealing.register_field(Environment, "verify_secret_sealed")


class ApprovalRule(models.Model):
    """`required` different people of one group must approve each promotion to an environment. All rules must hold.

    The group is a role in the environment's team, a team, or named people. They need promotion.approve as well. The
    environment's `required_approvals` is the number of approvals in all; a rule says who gives some of them.
    """

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="approval_rules")
    name = models.CharField(max_length=80)
    required = models.PositiveSmallIntegerField()
    role = models.ForeignKey(Role, on_delete=models.PROTECT, related_name="approval_rules", null=True)
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="approval_rules", null=True)
    people: models.ManyToManyField[User, Any] = models.ManyToManyField(User, related_name="approval_rules")

    class Meta:
        ordering = ("environment", "id")
        constraints = (
            models.UniqueConstraint(fields=("environment", "name"), name="approvalrule_once_per_environment_and_name"),
            models.CheckConstraint(condition=Q(required__gte=1), name="approvalrule_requires_somebody"),
            models.CheckConstraint(condition=Q(role=None) | Q(team=None), name="approvalrule_has_one_group"),
        )

    def __str__(self) -> str:
        return self.name


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


class Occupancy(models.Model):
    """One stay of an image in a slot, without interruption: the history of `Slot.image`."""

    slot = models.ForeignKey(Slot, on_delete=models.CASCADE, related_name="occupancies")
    image = models.ForeignKey("lifecycle.Image", on_delete=models.PROTECT, related_name="occupancies")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "occupancies"
        constraints = (
            models.UniqueConstraint(fields=("slot",), condition=Q(ended_at=None), name="occupancy_one_image_at_a_time"),
        )
        indexes = (models.Index(fields=("slot", "image"), name="occupancy_by_slot_and_image"),)

    def __str__(self) -> str:
        return f"{self.image} in {self.slot} since {self.started_at:%Y-%m-%d %H:%M}"


class Place(models.Model):
    """What a window or a hold applies to: the whole site, one team, or one environment of a team."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+", null=True)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+", null=True)

    class Meta:
        abstract = True

    @property
    def level(self) -> str:
        """site, team or environment."""
        return "environment" if self.environment_id else "team" if self.team_id else "site"

    @property
    def place_words(self) -> str:
        """The place in words: `the whole site`, `team shop`, `shop/production`."""
        if self.environment is not None and self.team is not None:
            return f"{self.team.slug}/{self.environment.slug}"
        return f"team {self.team.slug}" if self.team is not None else "the whole site"


class PromotionWindow(Place):
    """A freeze, in which no promotion runs, or allowed hours, outside of which none runs; once or repeated.

    `starts_at` and `duration_s` are wall-clock times of `time_zone`. A freeze wins over allowed hours.
    """

    class Kind(models.TextChoices):
        FREEZE = "freeze"
        ALLOW = "allow"

    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=6, choices=Kind)
    starts_at = models.CharField(max_length=19)  # local time without zone: 2026-11-26T16:00:00
    duration_s = models.PositiveIntegerField()
    time_zone = models.CharField(max_length=64)
    rule = models.CharField(max_length=200, blank=True)  # RRULE of RFC 5545; "" for once
    allows_rollback = models.BooleanField(default=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=("freeze", "allow")), name="promotionwindow_kind_known"),
            models.CheckConstraint(
                condition=Q(environment=None) | Q(team__isnull=False), name="promotionwindow_environment_has_a_team"
            ),
        )

    def __str__(self) -> str:
        return self.name


class Hold(Place):
    """Somebody stops promotions: of one repository in an environment, an environment, a team or the whole site.

    Several can coexist. A hold with scope `auto` stops only promotions that run without a user. A stop (`is_stop`)
    stops everything at its place and always expires.
    """

    class Scope(models.TextChoices):
        AUTO = "auto"
        ALL = "all"

    repository = models.ForeignKey("lifecycle.Repository", on_delete=models.CASCADE, related_name="holds", null=True)
    scope = models.CharField(max_length=4, choices=Scope, default=Scope.ALL)
    is_stop = models.BooleanField(default=False)
    reason = models.TextField()
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)  # null: until somebody lifts it
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)

    class Meta:
        constraints = (
            models.CheckConstraint(condition=Q(scope__in=("auto", "all")), name="hold_scope_known"),
            models.CheckConstraint(
                condition=Q(environment=None) | Q(team__isnull=False), name="hold_environment_has_a_team"
            ),
            models.CheckConstraint(
                condition=Q(is_stop=False) | Q(scope="all", expires_at__isnull=False, repository=None),
                name="hold_stop_holds_everything_and_expires",
            ),
        )
        indexes = (models.Index(fields=("team", "environment"), condition=Q(lifted_at=None), name="hold_by_place"),)

    def __str__(self) -> str:
        return f"{'stop' if self.is_stop else 'hold'} by {self.owner}"
