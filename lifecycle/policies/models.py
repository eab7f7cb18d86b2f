"""Rule sets with their revisions, and waivers."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import F, Q

from accounts.models import Team, User
from lifecycle.core import sealing
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Image, Repository


class Policy(models.Model):
    """The rule set of the site (neither team nor environment), of a team, or of an environment."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="policies", null=True)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="policies", null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "policies"
        constraints = (
            models.UniqueConstraint(
                fields=("team", "environment"), nulls_distinct=False, name="policy_once_per_team_and_environment"
            ),
            models.CheckConstraint(
                condition=Q(team=None) | Q(environment=None), name="policy_of_a_team_or_an_environment"
            ),
        )

    def __str__(self) -> str:
        if self.environment is not None:
            return f"team:{self.environment.team.slug}:{self.environment.slug}"
        return f"team:{self.team.slug}" if self.team is not None else "site"


class PolicyRevision(models.Model):
    """One version of a rule set. It never changes: a change is the next revision."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="revisions")
    number = models.IntegerField()
    rules: models.JSONField[Any, Any] = models.JSONField(default=list)  # policy.rulesets.Rule.as_json, one each
    cases: models.JSONField[Any, Any] = models.JSONField(default=list)  # the test cases beside the rules
    note = models.TextField(blank=True)
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    digest = models.CharField(max_length=71)  # sha256 of the canonical JSON of the rules
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("policy", "number"), name="policyrevision_once_per_policy_and_number"),
        )
        indexes = (models.Index(fields=("policy", "-number"), name="policyrevision_newest_first"),)

    def __str__(self) -> str:
        return f"{self.policy} revision {self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("A revision never changes. Save a new one.")
        super().save(*args, **kwargs)


class Waiver(models.Model):
    """An exception to one rule: for a digest, a repository or an environment, until a day, approved by a second person.

    With `advisory`, it covers one finding only, perhaps only in `package`. A waived rule is still judged and stored.
    """

    class State(models.TextChoices):
        REQUESTED = "requested"
        APPROVED = "approved"
        REJECTED = "rejected"
        REVOKED = "revoked"
        EXPIRED = "expired"
        CLOSED = "closed"  # a fix shipped, so that the reason is gone

    # The whole state machine. A state that is not a key here is final.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "requested": frozenset({"approved", "rejected", "revoked", "expired"}),
        "approved": frozenset({"revoked", "expired", "closed"}),
    }

    rule = models.CharField(max_length=60)  # key of the rule
    advisory = models.CharField(max_length=200, blank=True)
    package = models.CharField(max_length=500, blank=True)  # with the namespace: "debian/openssl"
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="waivers")
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="waivers", null=True)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="waivers", null=True)
    digest = models.CharField(max_length=135, blank=True)
    state = models.CharField(max_length=9, choices=State, default=State.REQUESTED)
    reason = models.TextField()
    ticket = models.CharField(max_length=300)
    until = models.DateTimeField()
    had_fix = models.BooleanField(default=False)  # a fix was known when it was requested, so a fix does not close it
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    decision = models.TextField(blank=True)  # what the second person wrote, or why it ended
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    warned_days = models.SmallIntegerField(null=True)  # the last warning: so many days before the end

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(repository__isnull=False) | Q(environment__isnull=False),
                name="waiver_of_a_repository_or_an_environment",
            ),
            models.CheckConstraint(
                condition=Q(digest="") | Q(repository__isnull=False), name="waiver_digest_has_place"
            ),
            models.CheckConstraint(condition=Q(package="") | ~Q(advisory=""), name="waiver_package_has_advisory"),
            models.CheckConstraint(
                condition=Q(decided_by=None) | ~Q(decided_by=F("requested_by")) | ~Q(state="approved"),
                name="waiver_approved_by_a_second_person",
            ),
            models.CheckConstraint(
                condition=Q(ended_at=None, state__in=("requested", "approved"))
                | Q(ended_at__isnull=False, state__in=("rejected", "revoked", "expired", "closed")),
                name="waiver_ended_exactly_when_final",
            ),
        )
        indexes = (
            models.Index(fields=("team", "-id"), name="waiver_by_team"),
            models.Index(fields=("team", "rule"), condition=Q(state="approved"), name="waiver_live_by_team"),
            models.Index(fields=("until",), condition=Q(ended_at=None), name="waiver_live_by_end"),
        )

    def __str__(self) -> str:
        return f"WV-{self.pk}"

    @property
    def scope_words(self) -> str:
        """What it covers: "sha256:1234 in shop/api in production"."""
        parts = [f"{self.digest[:19]}" if self.digest else "", self.repository.name if self.repository else ""]
        words = " in ".join(part for part in parts if part) or f"every repository of {self.team.slug}"
        return f"{words} in {self.environment.slug}" if self.environment else words


class ExternalCheck(models.Model):
    """A service that says whether an image is good, for the rules of the site (without team) or of one team."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="external_checks", null=True)
    name = models.SlugField(max_length=60)
    host = models.CharField(max_length=200)  # of the address, which is a secret as a whole
    address_sealed = models.BinaryField(default=b"")  # sealed for this row: core/sealing.py
    secret_sealed = models.BinaryField(default=b"")  # signs the calls and the replies
    revision = models.PositiveIntegerField(default=1)  # answers of an earlier revision do not count
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("team", "name"), nulls_distinct=False, name="externalcheck_once_per_team_and_name"
            ),
        )

    def __str__(self) -> str:
        return f"team:{self.team.slug}:{self.name}" if self.team is not None else f"site:{self.name}"


sealing.register_field(ExternalCheck, "address_sealed")
sealing.register_field(ExternalCheck, "secret_sealed")


class ExternalAnswer(models.Model):
    """What a check said last about an image of a source repository, and what the last attempt brought."""

    check_asked = models.ForeignKey(ExternalCheck, on_delete=models.CASCADE, related_name="answers", db_index=False)
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="external_answers")
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+")
    has_passed = models.BooleanField(null=True)  # of the signed reply; null: it could not say, or there is none
    message = models.CharField(max_length=500, blank=True)  # of the signed reply
    answered_at = models.DateTimeField(null=True)  # of the signed reply, by our clock
    problem = models.CharField(max_length=500, blank=True)  # why the last attempt brought no signed reply
    revision = models.PositiveIntegerField(default=0)  # of the check, when it was asked
    queued_at = models.DateTimeField(null=True)  # when it was last to be asked
    asked_at = models.DateTimeField(null=True)  # of the last attempt

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("check_asked", "image", "repository"), name="externalanswer_once_per_check_and_image"
            ),
            models.CheckConstraint(
                condition=Q(has_passed=None) | Q(answered_at__isnull=False), name="externalanswer_has_time"
            ),
        )

    def __str__(self) -> str:
        return f"{self.check_asked} about {self.image} of {self.repository}"


class DueTable(models.Model):
    """One version of the table of due dates. It never changes: a change is the next revision."""

    revision = models.PositiveIntegerField(unique=True)
    rows: models.JSONField[Any, Any] = models.JSONField(default=list)  # policy.due_dates.DueRow.as_json, one each
    note = models.TextField(blank=True)
    changed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    changed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"due dates, revision {self.revision}"
