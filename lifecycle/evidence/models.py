"""What the policies said about an image when it was pushed, and what counts of each package version."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q

from lifecycle.policies.models import Waiver
from lifecycle.registry.models import Image, Repository
from lifecycle.sbom.models import PackageVersion


class IngestVerdict(models.Model):
    """The outcome of the rules at ingest for one image in one source repository, once its facts were there.

    It stays as it was, unless the image is scanned or matched again, or an external check answers.
    """

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="ingest_verdicts")
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+")
    rules: models.JSONField[Any, Any] = models.JSONField(default=list)  # policy.images.Judged.as_json, one each
    revisions: models.JSONField[Any, Any] = models.JSONField(default=list)  # [scope, number, digest] of the rule sets
    is_allowed = models.BooleanField(null=True)  # no enforced rule failed; null: not judged yet
    judged_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)  # when it is to be judged next; null: it is done
    marked_at = models.DateTimeField(null=True)  # since when it waits to be judged; null: since it was created
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("image", "repository"), name="ingestverdict_once_per_place"),
            models.CheckConstraint(
                condition=Q(is_allowed=None, judged_at=None) | Q(is_allowed__isnull=False, judged_at__isnull=False),
                name="ingestverdict_judged_at_a_time",
            ),
        )
        indexes = (models.Index(fields=("due_at",), condition=Q(due_at__isnull=False), name="ingestverdict_due"),)

    def __str__(self) -> str:
        return f"{self.image} in {self.repository}"

    @property
    def shown(self) -> list[Any]:
        """The rules that everybody sees: those that warn, or enforce, which `as_json` stores without a mode."""
        return [rule for rule in self.rules if rule.get("mode", "enforce") in {"warn", "enforce"}]

    @property
    def failed(self) -> list[Any]:
        """The rules that warn or enforce, and that the image does not pass. Unknown is not a pass."""
        return [rule for rule in self.shown if not rule["is_open"]]


class PackageCounts(models.Model):
    """What the stored counts of images contain for one package version (`evidence.package_counts`).

    Written only together with the images that have it, so that a change adds the difference to them. A package version
    without a row was never counted so: its images are counted whole.
    """

    package = models.OneToOneField(
        PackageVersion, on_delete=models.CASCADE, related_name="+", primary_key=True, db_constraint=False
    )
    critical = models.IntegerField()
    high = models.IntegerField()
    medium = models.IntegerField()
    low = models.IntegerField()
    unknown = models.IntegerField()
    fixable = models.IntegerField()
    reason = models.TextField()  # why it could not be judged; "" if it could

    class Meta:
        verbose_name_plural = "package counts"

    def __str__(self) -> str:
        return str(self.package_id)


class WaivedFinding(models.Model):
    """An open finding of a platform manifest that approved waivers accept everywhere the image is: it is `waived`.

    Only pairs that a live waiver names have a row, so this stays small. `waiving.refresh` writes it whenever the counts
    of an image are made again; counts and lists read it, gates judge the waivers themselves (docs/adr/0023).
    """

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="waived_findings", db_index=False)
    package = models.ForeignKey(PackageVersion, on_delete=models.CASCADE, related_name="+")
    vulnerability = models.CharField(max_length=200)  # as in Advisory.vulnerability
    waiver = models.ForeignKey(Waiver, on_delete=models.CASCADE, related_name="+")  # the one that ends first

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("image", "package", "vulnerability"), name="waivedfinding_once_per_image_and_finding"
            ),
        )

    def __str__(self) -> str:
        return f"{self.waiver_id} for {self.vulnerability} in {self.image_id}"
