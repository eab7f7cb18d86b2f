"""The content of images: SBOM documents, package versions, and the inventories that images share."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models import User
from lifecycle.registry.models import Image, Repository
from lifecycle.versions import current_key_version
from lifecycle.versions.coordinates import package_words


class PackageVersion(models.Model):
    """One version of one package, identified by its purl (with qualifiers), version, source package and owner.

    `purl` is stored as given. If it has no version or source package, these can come from the row of an inventory, and
    they affect matching (`sbom.packages.PackageKey`). All images with the package version share the row.

    `ecosystem`, `release`, `match_name`, `match_version` and `version_key` are its coordinates in OSV terms, from
    `versions.coordinates`. `problem` is the reason why it cannot be matched; `version_key` is then null.
    """

    purl = models.TextField()
    type = models.CharField(max_length=40)  # the purl's type: deb, apk, rpm, pypi, npm ...
    namespace = models.CharField(max_length=255, blank=True)
    name = models.CharField(max_length=255)
    version = models.CharField(max_length=500, blank=True)
    source_name = models.CharField(max_length=255, blank=True)
    source_version = models.CharField(max_length=500, blank=True)
    # The purl of the distribution's package that owns the files of this package of a language. Its advisories decide.
    owner = models.CharField(max_length=500, blank=True, default="", db_default="")
    ecosystem = models.CharField(max_length=60, blank=True)  # OSV ecosystem without suffix: "Debian", "PyPI"
    # The suffix: "12", "v3.18", "22.04:LTS", or the address of the package repository that the purl names.
    release = models.CharField(max_length=300, blank=True)
    match_name = models.CharField(max_length=500, blank=True)
    match_version = models.CharField(max_length=500, blank=True)
    scheme = models.CharField(max_length=12, blank=True)
    version_key = models.BinaryField(null=True)  # order-preserving: versions.version_key
    problem = models.CharField(max_length=200, blank=True)
    # versions.KEY_VERSION of the coordinates; those of an older one are derived again (sbom.services.derive_again)
    key_version = models.SmallIntegerField(default=current_key_version, db_default=1)
    is_unmatched = models.BooleanField(default=False, db_default=False)  # stored, but not yet compared with advisories
    first_seen_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("purl", "version", "source_name", "source_version", "owner"),
                name="packageversion_once_by_owner",
            ),
        )
        indexes = (
            models.Index(
                fields=("ecosystem", "match_name", "version_key"),
                condition=~Q(ecosystem=""),
                name="packageversion_by_coordinates",
            ),
            models.Index(fields=("name",), name="packageversion_by_name"),
            models.Index(fields=("source_name",), condition=~Q(source_name=""), name="packageversion_by_source"),
        )

    def __str__(self) -> str:
        return self.purl

    @property
    def owner_words(self) -> str:
        """The distribution's package that this one is judged as: "Debian python3-urllib3"; "" without an owner."""
        return package_words(self.owner) if self.owner else ""


class Inventory(models.Model):
    """A content-addressed set of package versions that one layer added and no later layer replaced.

    `digest` is the sha256 over the sorted package keys (for most packages the purl). Images that share the layer
    therefore share the row (docs/adr/0005).
    """

    digest = models.CharField(max_length=71, unique=True)
    package_count = models.IntegerField()
    first_seen_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "inventories"

    def __str__(self) -> str:
        return self.digest


class InventoryPackage(models.Model):
    """A package version in an inventory.

    Written once, by the transaction that stores the inventory, and never changed. So there are no foreign key
    constraints: PostgreSQL would check two for each row, half of the time of an import (docs/adr/0005).
    """

    # `db_index=False` where a constraint or an index begins with the column. This saves a third of the table's size.
    inventory = models.ForeignKey(
        Inventory, on_delete=models.CASCADE, related_name="inventory_packages", db_index=False, db_constraint=False
    )
    package = models.ForeignKey(
        PackageVersion, on_delete=models.PROTECT, related_name="inventory_packages", db_index=False, db_constraint=False
    )

    class Meta:
        constraints = (models.UniqueConstraint(fields=("inventory", "package"), name="inventorypackage_once"),)
        # Both columns, so that the inventories of a package are read from the index alone.
        indexes = (models.Index(fields=("package", "inventory"), name="inventorypackage_by_package"),)

    def __str__(self) -> str:
        return f"{self.inventory_id}: {self.package_id}"


class ImageInventory(models.Model):
    """An inventory in an image, and the layer it is from. The layer is null where the document does not name it."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="image_inventories", db_index=False)
    inventory = models.ForeignKey(Inventory, on_delete=models.PROTECT, related_name="image_inventories", db_index=False)
    layer_position = models.IntegerField(null=True)
    added_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "image inventories"
        constraints = (
            models.UniqueConstraint(
                fields=("image", "inventory", "layer_position"), nulls_distinct=False, name="imageinventory_once"
            ),
        )
        indexes = (models.Index(fields=("inventory", "image"), name="imageinventory_by_inventory"),)

    def __str__(self) -> str:
        return f"{self.image_id}: {self.inventory_id}"


class Sbom(models.Model):
    """The SBOM document of one platform manifest. Each image is scanned once."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="sboms")
    format = models.CharField(max_length=40)  # "syft-json", "import"
    tool = models.CharField(max_length=80)  # "syft 1.18.1"
    digest = models.CharField(max_length=71)  # of the document as the tool wrote it
    document = models.BinaryField(default=b"")  # zlib-compressed; empty for imports
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("image", "digest"), name="sbom_once_per_image_and_document"),)

    def __str__(self) -> str:
        return f"{self.tool} of {self.image_id}"


class ContentSet(models.Model):
    """What a check of files found in one layer: setuid files, private keys, malware and others (`sbom.contents`).

    `digest` is over the entries, so images that share the layer share the row. `entries` are [kind, path, detail], at
    most `contents.LISTED_MAX` of each kind; `counts` has all. No entry says what a file contains.
    """

    digest = models.CharField(max_length=71, unique=True)
    entries: models.JSONField[Any, Any] = models.JSONField()
    counts: models.JSONField[Any, Any] = models.JSONField()  # {kind: number of files}
    first_seen_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.digest


class ImageContentSet(models.Model):
    """What one layer of an image brought that no later layer removed. Layers without a problem have no row."""

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="content_sets", db_index=False)
    content_set = models.ForeignKey(ContentSet, on_delete=models.PROTECT, related_name="image_content_sets")
    layer_position = models.IntegerField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("image", "layer_position"), name="imagecontentset_once"),)

    def __str__(self) -> str:
        return f"{self.image_id}: {self.content_set_id}"


class ImageLicences(models.Model):
    """The licences that the packages of an image declare. Without a row, they were not read."""

    image = models.OneToOneField(Image, on_delete=models.CASCADE, related_name="licences", primary_key=True)
    # {licence or SPDX expression: names of up to `licences.SHOWN` packages}
    licences: models.JSONField[Any, Any] = models.JSONField(default=dict)
    undeclared_count = models.IntegerField()  # packages that declare none

    def __str__(self) -> str:
        return f"{self.image_id}: {len(self.licences)} licences"


class ContentCheck(models.Model):
    """The last check of an image's files. Without a row, or with a problem, nothing counts as absent."""

    class Malware(models.TextChoices):
        OFF = "off"  # no scanner is set
        CLEAN = "clean"
        FOUND = "found"
        UNKNOWN = "unknown"  # the scanner did not answer, or did not take a file

    image = models.OneToOneField(Image, on_delete=models.CASCADE, related_name="content_check", primary_key=True)
    checked_at = models.DateTimeField()
    problem = models.TextField(blank=True)
    malware = models.CharField(max_length=7, choices=Malware)
    malware_problem = models.TextField(blank=True)
    engine = models.CharField(max_length=200, blank=True)  # the malware scanner with the version of its signatures
    rules_version = models.IntegerField()  # of secret_rules.json

    def __str__(self) -> str:
        return f"{self.image_id}: {self.problem or 'complete'}"


class PackageList(models.Model):
    """The packages that one SBOM of an image lists, for images with an SBOM that the image or a person brought.

    The inventories of the image are a copy of the list that `is_used`. An image without a brought SBOM has no rows: its
    inventories are what our scan found.
    """

    class Kind(models.TextChoices):
        OWN = "own", "Our scan"  # or an import
        SENT = "sent", "Sent through the API"
        REGISTRY = "registry", "Found in the registry"

    sbom = models.OneToOneField(Sbom, on_delete=models.CASCADE, related_name="package_list", primary_key=True)
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="package_lists", db_index=False)
    kind = models.CharField(max_length=8, choices=Kind)
    is_used = models.BooleanField(default=False)
    package_count = models.IntegerField()
    dropped_count = models.IntegerField()  # components without a usable package URL
    # The first of them: [place in the document, name, version].
    dropped: models.JSONField[Any, Any] = models.JSONField(default=list)
    distro = models.CharField(max_length=60, blank=True)
    problem = models.CharField(max_length=300, blank=True)  # of our scan
    sent_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    # The teams for whose images the sender could speak when it was sent; with `is_site_wide`, all.
    team_ids: ArrayField[Any, Any] = ArrayField(models.BigIntegerField(), default=list)
    is_site_wide = models.BooleanField(default=False)
    repository = models.ForeignKey(Repository, on_delete=models.SET_NULL, null=True, related_name="+")
    object_digest = models.CharField(max_length=135, blank=True)  # of what the registry holds: `trust` knows who signed
    withdrawn_at = models.DateTimeField(null=True)
    withdrawn_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    checked_at = models.DateTimeField(null=True)  # when it was last decided which list counts; null: at once
    kept_at = models.DateTimeField()  # of our scan: when it was made

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("image",), condition=Q(is_used=True), name="packagelist_one_used"),
            models.CheckConstraint(
                condition=~Q(is_used=True) | Q(withdrawn_at=None), name="packagelist_withdrawn_is_unused"
            ),
        )
        indexes = (
            models.Index(fields=("image", "-kept_at"), name="packagelist_by_image"),
            models.Index(fields=("checked_at",), condition=~Q(kind="own"), name="packagelist_by_check"),
        )

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.image_id}"


class PackageListInventory(models.Model):
    """An inventory in a list, and the layer it is from, as `ImageInventory` has them for the list in use."""

    package_list = models.ForeignKey(PackageList, on_delete=models.CASCADE, related_name="inventories", db_index=False)
    inventory = models.ForeignKey(Inventory, on_delete=models.PROTECT, related_name="+")
    layer_position = models.IntegerField(null=True)

    class Meta:
        verbose_name_plural = "package list inventories"
        constraints = (
            models.UniqueConstraint(
                fields=("package_list", "inventory", "layer_position"),
                nulls_distinct=False,
                name="packagelistinventory_once",
            ),
        )

    def __str__(self) -> str:
        return f"{self.package_list_id}: {self.inventory_id}"
