"""What to do about the open findings of each repository's current image, found by the job of this package."""

from __future__ import annotations

from typing import Any

from django.db import models

from lifecycle.registry.models import Image, Repository


class Remedy(models.Model):
    """One remedy of one repository, with the findings that it closes there.

    Rows of several repositories with the same `key` are the same remedy: pages show them as one. A finding is an
    advisory in the image, however many of its packages it affects.
    """

    class Kind(models.TextChoices):
        REBUILD = "rebuild"  # a newer image of the base is there, and does not have these findings
        UPGRADE = "upgrade"  # a package of the image's own layers has a fixed version
        WAIT = "wait"  # the package is from the base, and no newer image of the base is better
        NONE = "none"  # a package of the image's own layers, without a fixed version

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="remedies", db_index=False)
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="+")  # current when it was found
    key = models.CharField(max_length=16)
    kind = models.CharField(max_length=7, choices=Kind)
    base = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+", null=True)
    base_tag = models.CharField(max_length=128, blank=True)
    old_base = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="+", null=True)
    new_base = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="+", null=True)
    package_type = models.CharField(max_length=40, blank=True)
    package_name = models.CharField(max_length=520, blank=True)  # with namespace
    fixed_version = models.CharField(max_length=500, blank=True)
    critical = models.IntegerField(default=0)
    high = models.IntegerField(default=0)
    medium = models.IntegerField(default=0)
    low = models.IntegerField(default=0)
    unknown = models.IntegerField(default=0)  # severity unknown or none
    exploited = models.IntegerField(default=0)  # of them, advisories that a KEV list names
    epss = models.FloatField(null=True)  # the highest score of them, 0 to 1; null where no feed has one
    # [[vulnerability, severity, package, is known exploited, EPSS score or null], ...]
    closes: models.JSONField[Any, Any] = models.JSONField(default=list)
    due_at = models.DateTimeField(null=True)  # the earliest due date of its findings; null: none is ever due
    found_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "remedies"
        constraints = (models.UniqueConstraint(fields=("repository", "key"), name="remedy_once_per_repository"),)
        indexes = (models.Index(fields=("key",), name="remedy_by_key"),)

    def __str__(self) -> str:
        return f"{self.kind} of {self.repository}"


class RemedyPass(models.Model):
    """When remedies were last looked for: what changed since then is looked at next. One row."""

    looked_at = models.DateTimeField()
    exploits_read_at = models.DateTimeField(null=True)  # the newest list of exploits then; null without one
    due_revision = models.PositiveIntegerField(default=0, db_default=0)  # of the table of due dates then

    class Meta:
        verbose_name_plural = "remedy passes"

    def __str__(self) -> str:
        return f"remedies at {self.looked_at:%Y-%m-%d %H:%M}"
