"""What is open today in each repository, and one fact for each day on which something changed."""

from __future__ import annotations

from typing import Any, Final

from django.db import models
from django.db.models import Q

from accounts.models import Team
from lifecycle.registry.models import Repository


class Counts(models.Model):
    """Open findings: an advisory counts once in each repository, in the images in use there."""

    critical = models.PositiveIntegerField(default=0)
    high = models.PositiveIntegerField(default=0)
    medium = models.PositiveIntegerField(default=0)
    low = models.PositiveIntegerField(default=0)
    unknown = models.PositiveIntegerField(default=0)  # severity unknown or none
    exploited = models.PositiveIntegerField(default=0)  # of them, those that a KEV list names
    overdue = models.PositiveIntegerField(default=0)  # of them, those past their due date
    unscanned = models.PositiveIntegerField(default=0)  # platforms of images in use whose packages are unknown

    class Meta:
        abstract = True


COUNTED: Final = ("critical", "high", "medium", "low", "unknown", "exploited", "overdue", "unscanned")


class TrendState(Counts):
    """What was open in a repository at the last look. The next look compares with it."""

    repository = models.OneToOneField(Repository, on_delete=models.CASCADE, related_name="+", primary_key=True)
    day = models.DateField()  # of the last look
    fact_day = models.DateField()  # of the last fact
    open: models.JSONField[Any, Any] = models.JSONField(default=dict)  # {vulnerability: when it was first seen}

    def __str__(self) -> str:
        return f"{self.repository_id} at {self.day}"


class TrendFact(Counts):
    """The counts of a repository or of a whole team at the end of a day (UTC), and what was fixed since the day before.

    A team has one for each day. A repository has one when something changed, and at least every 30 days.
    """

    day = models.DateField()
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+", null=True, db_index=False)
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+", null=True, db_index=False)
    # {days that it took: number of findings}; what was decided, withdrawn or deleted is not fixed.
    fixed: models.JSONField[Any, Any] = models.JSONField(default=dict)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("team", "day"), condition=Q(repository=None), name="trendfact_of_team"),
            models.UniqueConstraint(
                fields=("repository", "day"), condition=Q(team=None), name="trendfact_of_repository"
            ),
            models.CheckConstraint(
                condition=Q(team=None, repository__isnull=False) | Q(team__isnull=False, repository=None),
                name="trendfact_is_about_one",
            ),
        )
        indexes = (models.Index(fields=("day",), name="trendfact_by_day"),)

    def __str__(self) -> str:
        return f"{self.team_id or self.repository_id} on {self.day}"


class TrendDay(models.Model):
    """A day whose facts are complete."""

    day = models.DateField(primary_key=True)

    def __str__(self) -> str:
        return str(self.day)
