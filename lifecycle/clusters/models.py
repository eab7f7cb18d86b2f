"""Clusters, the environments that their namespaces are bound to, and their secrets."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Length, Now

from accounts.models import TEAM_SLUG, Team, User
from lifecycle.clusters.constants import STALE_MAX_S, STALE_MIN_S, STALE_S
from lifecycle.environments.models import Environment

# Kubernetes allows labels of RFC 1123; names of other systems have upper case, dots and underscores too.
NAMESPACE_PATTERN = RegexValidator(
    r"^[A-Za-z0-9*]([A-Za-z0-9*._-]{0,251}[A-Za-z0-9*])?\Z", "Letters, digits, hyphens, dots, and * for any characters."
)


class Mode(models.TextChoices):
    """What admission does with an image that may not run."""

    OFF = "off"  # answers at once, and records nothing
    OBSERVE = "observe"  # allows, and records what enforce would refuse
    WARN = "warn"  # allows with a warning to whoever creates it
    ENFORCE = "enforce"  # refuses


class Cluster(models.Model):
    """A place where containers run: it asks whether an image may start, and reports what runs."""

    class Kind(models.TextChoices):
        KUBERNETES = "kubernetes"
        DOCKER = "docker"
        ECS = "ecs", "ECS"
        GENERIC = "generic"

    class Tags(models.TextChoices):
        RESOLVE = "resolve"  # a tag is judged as the digest that it names now
        REQUIRE_DIGEST = "require_digest"

    class Unbound(models.TextChoices):
        OBSERVE = "observe"  # a namespace without a binding is only recorded
        DENY = "deny"

    slug = models.CharField(max_length=60, unique=True, validators=[TEAM_SLUG])
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="clusters")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.KUBERNETES)
    mode = models.CharField(max_length=7, choices=Mode, default=Mode.OBSERVE)
    tags = models.CharField(max_length=14, choices=Tags, default=Tags.RESOLVE)
    unbound = models.CharField(max_length=7, choices=Unbound, default=Unbound.OBSERVE)
    # Who may break glass here: `user:NAME` or `group:NAME`, as the API server names them.
    breakglass_subjects = ArrayField(models.CharField(max_length=256), default=list, blank=True)
    # An older snapshot is not trusted: enforce refuses until it is renewed.
    stale_after_s = models.PositiveIntegerField(default=STALE_S)
    revision = models.PositiveIntegerField(default=1)  # counts the changes of settings and bindings
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    # Until when a new authority of the admission port waits for this cluster to trust it; null: it does not.
    authority_waits_until = models.DateTimeField(null=True)
    enforced_at = models.DateTimeField(null=True)  # since when the mode is enforce, or null
    unbound_enforced_at = models.DateTimeField(null=True)  # since when namespaces without a binding are refused
    ended_at = models.DateTimeField(null=True)  # when it was deleted; its history stays for a while
    # Whether the manifest includes the webhook that names images of new Pods by digest, and we answer it.
    mutate = models.BooleanField(default=False, db_default=False)
    bound_at = models.DateTimeField(db_default=Now())  # since when the bindings are as they are

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(kind__in=("kubernetes", "docker", "ecs", "generic")), name="cluster_kind_known"
            ),
            models.CheckConstraint(
                condition=Q(mode__in=("off", "observe", "warn", "enforce")), name="cluster_mode_known"
            ),
            models.CheckConstraint(condition=Q(tags__in=("resolve", "require_digest")), name="cluster_tags_known"),
            models.CheckConstraint(condition=Q(unbound__in=("observe", "deny")), name="cluster_unbound_known"),
            models.CheckConstraint(
                condition=Q(stale_after_s__gte=STALE_MIN_S, stale_after_s__lte=STALE_MAX_S),
                name="cluster_stale_after_in_range",
            ),
        )

    def __str__(self) -> str:
        return self.slug


class NamespaceBinding(models.Model):
    """The environment whose images may run in the namespaces that a pattern matches. The most exact pattern wins."""

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="bindings")
    pattern = models.CharField(max_length=253, validators=[NAMESPACE_PATTERN])
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="bindings")
    mode = models.CharField(max_length=7, choices=Mode, blank=True)  # "": that of the cluster
    # Registries that are not ours, from which images may come here: `host` or `host:port`.
    allowed_hosts = ArrayField(models.CharField(max_length=255), default=list, blank=True)
    # Since when all namespaces that it counts for are refused what may not run; null while it refuses nothing.
    enforced_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("cluster", Length("pattern").desc(), "pattern")
        constraints = (
            models.UniqueConstraint(fields=("cluster", "pattern"), name="namespacebinding_once_per_pattern"),
            models.CheckConstraint(
                condition=Q(mode__in=("", "off", "observe", "warn", "enforce")), name="namespacebinding_mode_known"
            ),
        )

    def __str__(self) -> str:
        return f"{self.pattern} of {self.cluster}"


class ClusterSecret(models.Model):
    """A secret in the configuration of a cluster, to ask about images or to send alerts. Only its hash is kept."""

    class Kind(models.TextChoices):
        ADMISSION = "admission"
        ALERTS = "alerts"

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="secrets")
    kind = models.CharField(max_length=9, choices=Kind)
    # Unsalted and fast: the secret has 202 random bits, and every review checks it.
    sha256 = models.BinaryField(max_length=32, unique=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    valid_until = models.DateTimeField(null=True)  # null: until a new one of its kind is made

    class Meta:
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=("admission", "alerts")), name="clustersecret_kind_known"),
            models.UniqueConstraint(
                fields=("cluster", "kind"), condition=Q(valid_until=None), name="clustersecret_one_current_per_kind"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} secret of {self.cluster}"


class ClusterAgent(models.Model):
    """The account with which an agent reports one cluster. It sees that cluster and no other, whatever it is granted.

    The row outlives the cluster: an account that spoke for one does not begin to speak for others.
    """

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="+")
    cluster = models.ForeignKey(Cluster, on_delete=models.SET_NULL, related_name="agents", null=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.user} of {self.cluster or 'a deleted cluster'}"
