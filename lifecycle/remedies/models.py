"""What to do about the open findings of each repository's images in use, and what teams do about it."""

from __future__ import annotations

from typing import Any

from django.db import models

from accounts.models import Team, User
from lifecycle.registry.models import Image, Repository


class Remedy(models.Model):
    """One remedy of one image of a repository, with the findings that it closes there.

    The image is the current one of the repository, or an older one that an environment still runs.

    Rows of several repositories with the same `key` are the same remedy: pages show them as one. A finding is an
    advisory in the image, however many of its packages it affects.
    """

    class Kind(models.TextChoices):
        REBUILD = "rebuild"  # a newer image of the base is there, and does not have these findings
        UPGRADE = "upgrade"  # a package of the image's own layers has a fixed version
        WAIT = "wait"  # the package is from the base, and no newer image of the base is better
        NONE = "none"  # a package of the image's own layers, without a fixed version
        PROMOTE = "promote"  # an environment runs an older image, and the current one does not have these findings

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="remedies", db_index=False)
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="+")  # in use when it was found
    key = models.CharField(max_length=16)
    # Stays the same while versions and newer images change: see TeamFix.
    subject = models.CharField(max_length=16, blank=True, default="", db_default="")
    kind = models.CharField(max_length=7, choices=Kind)
    # For a promotion: the repository itself, its tag, the image that runs (old_base) and the current one (new_base).
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
    # [[vulnerability, severity, package, is known exploited, EPSS score or null, first seen, due or null], ...]
    closes: models.JSONField[Any, Any] = models.JSONField(default=list)
    due_at = models.DateTimeField(null=True)  # the earliest due date of its findings; null: none is ever due
    found_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "remedies"
        constraints = (models.UniqueConstraint(fields=("repository", "image", "key"), name="remedy_once_per_image"),)
        indexes = (
            models.Index(fields=("key",), name="remedy_by_key"),
            models.Index(fields=("subject",), name="remedy_by_subject"),
        )

    def __str__(self) -> str:
        return f"{self.kind} of {self.repository}"


class TeamFix(models.Model):
    """What one team does about one remedy: who works on it, until when it is put off, and comments.

    Remedies are found again all the time, and their rows are replaced. `subject` says what the remedy is about: the
    package, the tag of the base, or the repository. It stays the same when another version fixes it.
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    subject = models.CharField(max_length=16)
    person = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)  # who works on it
    to_team = models.ForeignKey(Team, on_delete=models.SET_NULL, related_name="+", null=True)  # or which team
    snoozed_until = models.DateTimeField(null=True)
    until_fix = models.BooleanField(default=False)  # put off while there is no fix
    was_exploited = models.BooleanField(default=False)  # when it was put off; what becomes exploited ends a snooze
    snoozed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    reason = models.TextField(blank=True)  # of the snooze
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "fixes of teams"
        constraints = (
            models.UniqueConstraint(fields=("team", "subject"), name="teamfix_once_per_team"),
            models.CheckConstraint(
                condition=models.Q(person=None) | models.Q(to_team=None), name="teamfix_has_one_assignee"
            ),
        )

    def __str__(self) -> str:
        return f"FX-{self.pk}"


class FixComment(models.Model):
    """What somebody wrote about a remedy, for all who can see an image of the team that needs it."""

    fix = models.ForeignKey(TeamFix, on_delete=models.CASCADE, related_name="comments")
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    text = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"comment {self.pk}"


class RemedyPass(models.Model):
    """When remedies were last looked for: what changed since then is looked at next. One row."""

    looked_at = models.DateTimeField()
    exploits_read_at = models.DateTimeField(null=True)  # the newest list of exploits then; null without one
    due_revision = models.PositiveIntegerField(default=0, db_default=0)  # of the table of due dates then

    class Meta:
        verbose_name_plural = "remedy passes"

    def __str__(self) -> str:
        return f"remedies at {self.looked_at:%Y-%m-%d %H:%M}"
