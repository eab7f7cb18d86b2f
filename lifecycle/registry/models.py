"""The content of registries: repositories, images by digest, layers, tags and their history."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector
from django.db import models
from django.db.models import F, Func, Q, Value

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.core import sealing
from lifecycle.core.types import REPOSITORY_NAME_MAX
from lifecycle.registry.constants import HELM_CHART, OWN_ARTIFACTS


def words_of_name() -> SearchVector:
    """Return the words of a repository's name, for a search by their beginning. `repository_by_words` indexes them."""
    spaced = Func(F("name"), Value("[^A-Za-z0-9]+"), Value(" "), Value("g"), function="regexp_replace")
    return SearchVector(spaced, config="simple")


class Registry(models.Model):
    """An OCI registry. One is *managed*: we are its token service, so we control all access to it.

    Others were added by an admin (`is_added`): we may read and write there. The rest are names in inventory files.
    """

    name = models.SlugField(max_length=60, unique=True)  # also the last part of its webhook URL
    endpoint = models.CharField(max_length=255, unique=True)  # "https://registry.example.com", no path
    is_managed = models.BooleanField(default=False)
    is_added = models.BooleanField(default=False)
    username = models.CharField(max_length=255, blank=True)
    password_encrypted = models.BinaryField(default=b"", blank=True)  # sealed for this row: core/sealing.py
    ca_certificate = models.TextField(blank=True)  # PEM; trusted for this registry, beside the system's authorities
    revision = models.PositiveIntegerField(default=1)  # counts the changes by admins
    crawled_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "registries"
        constraints = (
            models.UniqueConstraint(
                fields=("is_managed",), condition=Q(is_managed=True), name="registry_only_one_is_managed"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_ours(self) -> bool:
        """Whether we are allowed to read it: it is managed, or was added. A name in an inventory is not enough."""
        return self.is_managed or self.is_added

    @property
    def is_without_tls(self) -> bool:
        """Whether an admin allowed plain HTTP."""
        return self.endpoint.startswith("http://")

    @property
    def has_password(self) -> bool:
        """Whether credentials are stored."""
        return bool(self.password_encrypted)

    @property
    def host(self) -> str:
        """`host[:port]`, as clients write it before a repository name."""
        return self.endpoint.partition("://")[2].rstrip("/")

    @property
    def name_max(self) -> int:
        """The longest repository name that it takes and that clients can pull, in characters.

        Clients limit host and name together. Distribution 2.8 answers 500 for a name that is too long together with
        `docker.io/`, whatever its own host.
        """
        return REPOSITORY_NAME_MAX - max(len(self.host), len("docker.io")) - 1


sealing.register_field(Registry, "password_encrypted")


class Repository(models.Model):
    """A repository in a registry, owned by one team.

    `source` is set on a promotion target: `production/shop/api` has `shop/api` as its source. Grants match `family`,
    which is the name of the source repository, or the repository's own name when it has no source.
    """

    class Visibility(models.TextChoices):
        """Who can see and pull its images without a grant (docs/adr/0019)."""

        PRIVATE = "private"  # nobody
        INTERNAL = "internal"  # every active account
        PUBLIC = "public"  # everybody, where ANONYMOUS_ACCESS is on; else as internal

    registry = models.ForeignKey(Registry, on_delete=models.PROTECT, related_name="repositories")
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="repositories")
    name = models.CharField(max_length=255)
    family = models.CharField(max_length=255)
    source = models.ForeignKey("self", on_delete=models.PROTECT, related_name="targets", null=True, blank=True)
    environment = models.ForeignKey(
        "lifecycle.Environment", on_delete=models.PROTECT, related_name="repositories", null=True, blank=True
    )
    description = models.CharField(max_length=300, blank=True)
    visibility = models.CharField(
        max_length=8, choices=Visibility, default=Visibility.PRIVATE, db_default=Visibility.PRIVATE
    )
    archived_at = models.DateTimeField(null=True, blank=True)  # since then, nothing is pushed, rebuilt or promoted
    # Only users with image.amend can move tags that match these patterns. * matches any characters (docs/adr/0007).
    protected_tags: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=128), default=list, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now_add=True)  # time of the last push, promotion or rebuild into it

    class Meta:
        verbose_name_plural = "repositories"
        default_permissions = ()
        permissions = tuple((verb.codename, f"May {verb.value}") for verb in Verb)
        constraints = (
            models.UniqueConstraint(fields=("registry", "name"), name="repository_once_per_registry_and_name"),
            models.CheckConstraint(
                condition=Q(environment=None, source=None) | Q(environment__isnull=False, source__isnull=False),
                name="repository_target_has_both_source_and_environment",
            ),
        )
        indexes = (
            models.Index(fields=("team", "name"), name="repository_by_team_and_name"),
            models.Index(fields=("-updated_at", "-id"), name="repository_by_last_change"),
            GinIndex(words_of_name(), name="repository_by_words"),
            models.Index(fields=("visibility",), condition=~Q(visibility="private"), name="repository_open_to_others"),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_vault(self) -> bool:
        """Whether it holds withdrawn images of its family: only users with image.quarantine can pull from it."""
        return self.environment_id is None and self.family != self.name

    @property
    def is_archived(self) -> bool:
        """Whether nothing can be pushed to it, rebuilt in it or promoted from it."""
        return self.archived_at is not None


class Image(models.Model):
    """One manifest, identified by its digest. Images are global, but users see them only through visible repositories.

    `manifest` holds the bytes as served, because the digest is computed from them.
    """

    class Kind(models.TextChoices):
        MANIFEST = "manifest"  # one platform
        INDEX = "index"
        ARTIFACT = "artifact"  # not an image: signatures, SBOMs, build contexts and others

    digest = models.CharField(max_length=135, unique=True)
    kind = models.CharField(max_length=8, choices=Kind)
    media_type = models.CharField(max_length=150)
    artifact_type = models.CharField(max_length=255, blank=True)
    subject_digest = models.CharField(max_length=135, blank=True)
    manifest = models.BinaryField(default=b"")  # raw bytes; empty for an imported inventory
    config_digest = models.CharField(max_length=135, blank=True)
    config: models.JSONField[Any, Any] = models.JSONField(default=dict)  # the image configuration, parsed
    os = models.CharField(max_length=40, blank=True)
    architecture = models.CharField(max_length=40, blank=True)
    variant = models.CharField(max_length=40, blank=True)
    size_bytes = models.BigIntegerField(default=0)  # manifest's config and layers, compressed
    annotations: models.JSONField[Any, Any] = models.JSONField(default=dict)
    labels: models.JSONField[Any, Any] = models.JSONField(default=dict)
    base_name = models.CharField(max_length=500, blank=True)  # org.opencontainers.image.base.name, as declared
    base_digest = models.CharField(max_length=135, blank=True)  # ...base.digest, as declared
    # Chain ids over all layers (image-spec config.md); "" when the id of a layer is unknown. See oci/chains.py.
    diff_chain_id = models.CharField(max_length=71, blank=True)
    digest_chain_id = models.CharField(max_length=71, blank=True)
    layer_count = models.IntegerField(default=0)
    created_at = models.DateTimeField(null=True, blank=True)  # from the configuration
    first_seen_at = models.DateTimeField(auto_now_add=True)
    # Results of the scan job. evidence.risk.refresh_risk updates the counts below `package_count`.
    scanned_at = models.DateTimeField(null=True, blank=True)
    scan_problem = models.CharField(max_length=300, blank=True)
    distro = models.CharField(max_length=60, blank=True)  # "debian-12"
    package_count = models.IntegerField(default=0)
    dropped_count = models.IntegerField(default=0, db_default=0)  # packages that the scan saw but could not store
    unjudged_count = models.IntegerField(default=0, db_default=0)  # packages that no advisory could match, and dropped
    unjudged_reasons: models.JSONField[Any, Any] = models.JSONField(null=True)  # {reason: number of packages}
    critical_count = models.IntegerField(default=0)
    high_count = models.IntegerField(default=0)
    medium_count = models.IntegerField(default=0)
    low_count = models.IntegerField(default=0)
    unknown_count = models.IntegerField(default=0)  # severity unknown or none
    fixable_count = models.IntegerField(default=0)
    risk_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = (
            models.Index(fields=("-id",), condition=Q(kind="manifest"), name="image_manifests_newest_first"),
            GinIndex(fields=("annotations",), name="image_annotations", opclasses=("jsonb_path_ops",)),
            # Not `db_index`: it adds a second index for LIKE, which no query uses and every push must update.
            models.Index(fields=("subject_digest",), name="image_by_subject"),
            models.Index(fields=("config_digest",), name="image_by_config"),
            # Few images declare a base. With an index over all rows, the planner expects one value and scans the table.
            models.Index(fields=("base_digest",), condition=~Q(base_digest=""), name="image_by_declared_base"),
            models.Index(fields=("diff_chain_id",), name="image_by_diff_chain"),
            models.Index(fields=("digest_chain_id",), name="image_by_digest_chain"),
        )

    def __str__(self) -> str:
        return self.digest

    @property
    def short_digest(self) -> str:
        """The algorithm and the first twelve hex digits."""
        return self.digest[: self.digest.index(":") + 13]

    @property
    def platform(self) -> str:
        """`linux/amd64` or `linux/arm/v7`; empty when the configuration has no platform."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def is_content(self) -> bool:
        """Whether this stands on its own: an image, or an artifact such as a Helm chart.

        Signatures and attestations belong to another manifest, and build contexts to us.
        """
        if self.kind != self.Kind.ARTIFACT:
            return True
        return bool(self.artifact_type) and not self.subject_digest and not self.artifact_type.startswith(OWN_ARTIFACTS)

    @property
    def noun(self) -> str:
        """What it is, in words: "image", "Helm chart" or "artifact"."""
        if self.kind != self.Kind.ARTIFACT:
            return "image"
        return "Helm chart" if self.artifact_type == HELM_CHART else "artifact"

    @property
    def finding_count(self) -> int:
        """Number of open findings, each (package version, advisory) once. Zero alone does not mean "none": see
        `evidence.judgement`."""
        return self.critical_count + self.high_count + self.medium_count + self.low_count + self.unknown_count


class RepositoryImage(models.Model):
    """An image is, or was, in a repository. Users can see a digest only through such a row."""

    repository = models.ForeignKey(
        Repository, on_delete=models.CASCADE, related_name="repository_images", db_index=False
    )
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="repository_images")
    is_top_level = models.BooleanField(default=True)  # False for an image that is only the child of an index
    pushed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    added_at = models.DateTimeField(auto_now_add=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("repository", "image"), name="repositoryimage_once_per_repository_and_image"
            ),
        )
        indexes = (models.Index(fields=("repository", "-id"), name="repositoryimage_newest_first"),)

    def __str__(self) -> str:
        return f"{self.repository}@{self.image}"


class Metadata(models.Model):
    """One key and value that users gave to a repository, or to an image in that repository (`image` is set).

    Never to an image everywhere: another team with the same digest must not see it.
    """

    class Kind(models.TextChoices):
        TEXT = "text"
        NUMBER = "number"
        BOOLEAN = "boolean"
        DATE = "date"
        LINK = "link"

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="metadata", db_index=False)
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="metadata", null=True)
    key = models.CharField(max_length=100)
    kind = models.CharField(max_length=7, choices=Kind, default=Kind.TEXT)
    value = models.CharField(max_length=1000)  # in the form of its kind: "3.14", "true", "2026-11-28"
    changed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "metadata"
        constraints = (
            models.UniqueConstraint(
                fields=("repository", "image", "key"), nulls_distinct=False, name="metadata_once_per_subject_and_key"
            ),
        )
        indexes = (models.Index(fields=("key",), name="metadata_by_key"),)

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


class IndexEntry(models.Model):
    """A child manifest in an index."""

    index = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="entries")
    child = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="parents")
    position = models.IntegerField()
    platform = models.CharField(max_length=120, blank=True)
    annotations: models.JSONField[Any, Any] = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "index entries"
        ordering = ("position",)
        constraints = (models.UniqueConstraint(fields=("index", "position"), name="indexentry_once_per_position"),)

    def __str__(self) -> str:
        return f"{self.index} [{self.position}]"


class MissingChild(models.Model):
    """A child manifest of an index that is missing in the registry. It becomes an IndexEntry when the child arrives.

    A registry can accept an index before its children (an option of Distribution 3), and can lose children later.
    """

    index = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="missing_children")
    digest = models.CharField(max_length=135, db_index=True)
    position = models.IntegerField()
    platform = models.CharField(max_length=120, blank=True)
    annotations: models.JSONField[Any, Any] = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "missing children"
        constraints = (models.UniqueConstraint(fields=("index", "position"), name="missingchild_once_per_position"),)

    def __str__(self) -> str:
        return f"{self.index} [{self.position}] {self.digest}"


class Layer(models.Model):
    """One layer of one image, base first.

    `diff_chain_id` and `digest_chain_id` name this layer *and all below it*, by uncompressed and compressed digests.
    """

    # `db_index=False` here and below, because a constraint or an index already begins with this column.
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="layers", db_index=False)
    position = models.IntegerField()  # 0 is the lowest layer
    digest = models.CharField(max_length=135, blank=True)  # of the compressed blob; "" when an import does not have it
    diff_id = models.CharField(max_length=135, blank=True)  # of the uncompressed tar; "" likewise
    media_type = models.CharField(max_length=150, blank=True)
    size_bytes = models.BigIntegerField(default=0)
    created_by = models.TextField(blank=True)  # from the history entry of this layer
    diff_chain_id = models.CharField(max_length=71, blank=True)
    digest_chain_id = models.CharField(max_length=71, blank=True)

    class Meta:
        ordering = ("position",)
        constraints = (models.UniqueConstraint(fields=("image", "position"), name="layer_once_per_image_and_position"),)
        indexes = (
            models.Index(fields=("diff_chain_id",), condition=~Q(diff_chain_id=""), name="layer_by_diff_chain"),
            models.Index(fields=("digest_chain_id",), condition=~Q(digest_chain_id=""), name="layer_by_digest_chain"),
        )

    def __str__(self) -> str:
        return f"{self.image} layer {self.position}"


class Tag(models.Model):
    """A tag and the image it points at now. TagEvent stores its history."""

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="tags", db_index=False)
    name = models.CharField(max_length=128)
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="tags", null=True)  # null: deleted
    updated_at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("repository", "name"), name="tag_once_per_repository_and_name"),)
        indexes = (
            models.Index(fields=("repository", "-updated_at", "-id"), name="tag_newest_first"),
            models.Index(fields=("name",), name="tag_by_name"),
        )

    def __str__(self) -> str:
        return f"{self.repository}:{self.name}"


class TagEvent(models.Model):
    """A tag was created, moved or deleted. Append-only, except for `actor` and `via`, which can become known later."""

    class Via(models.TextChoices):
        PUSH = "push"
        CRAWL = "crawl"
        PROMOTION = "promotion"
        REBUILD = "rebuild"
        PROTECTION = "protection"  # moved back, because the user was not allowed to move it

    tag = models.ForeignKey(Tag, on_delete=models.CASCADE, related_name="events", db_index=False)
    old_image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+", null=True)
    new_image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+", null=True)
    via = models.CharField(max_length=10, choices=Via)
    actor = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (
            models.Index(fields=("tag", "-id"), name="tagevent_newest_first"),
            models.Index(fields=("at",), name="tagevent_by_time"),
        )

    def __str__(self) -> str:
        return f"{self.tag} at {self.at:%Y-%m-%d %H:%M}"
