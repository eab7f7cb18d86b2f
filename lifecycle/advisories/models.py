"""Advisories as OSV records, their affected versions as key intervals, and matches to package versions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models import User
from lifecycle.core import clock
from lifecycle.sbom.models import PackageVersion
from lifecycle.versions import current_key_version

OWN_FEED: Final = "private advisories"  # no name that an admin can give to a feed


class Feed(models.Model):
    """A source of advisories, synchronised as a whole. An advisory is identified by (feed, id)."""

    class Kind(models.TextChoices):
        OSV = "osv", "Advisories (OSV)"
        CVE = "cve", "CVE records"
        KEV = "kev", "Known exploited vulnerabilities (KEV)"
        EPSS = "epss", "Exploit scores (EPSS)"
        OWN = "own", "Private advisories"  # one feed, filled by approvals (private.py)

    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=4, choices=Kind, default=Kind.OSV, db_default=Kind.OSV)
    location = models.CharField(max_length=500)
    synced_at = models.DateTimeField(null=True, blank=True)  # when it was last read without an error
    # When its first synchronisation ended; null until then. What the first one brings is no difference to alert on.
    loaded_at = models.DateTimeField(null=True, blank=True, default=clock.now)
    # The same for each folder, {name: time}: one can be broken at first, or be new in the export (first_loads.py).
    loaded_folders: models.JSONField[Any, Any] = models.JSONField(default=dict, blank=True, db_default={})
    data_at = models.DateTimeField(null=True, blank=True)  # what the list says of its own date: KEV and EPSS
    # How admins keep it (feeds.py):
    every_hours = models.PositiveSmallIntegerField(null=True, blank=True)  # null: only by hand or by the command
    due_at = models.DateTimeField(null=True, blank=True)  # the next time, with jitter
    stale_after_hours = models.PositiveSmallIntegerField(default=72, db_default=72)  # the age that is an alarm
    max_minutes = models.PositiveSmallIntegerField(default=60, db_default=60)
    max_mib = models.PositiveIntegerField(default=4096, db_default=4096)
    revision = models.PositiveIntegerField(default=1, db_default=1)
    tried_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=500, blank=True, default="", db_default="")  # of the last run; "": none
    result: models.JSONField[Any, Any] = models.JSONField(default=dict, db_default={})  # counts of the last good run

    @property
    def is_stale(self) -> bool:
        """Whether it was not read for so long that it says little about today. True before the first time."""
        return self.synced_at is None or self.synced_at < clock.now() - timedelta(hours=self.stale_after_hours)

    @property
    def state(self) -> str:
        """Return "failed", "stale" or "current"; "new" before the first run."""
        if self.tried_at is None and self.synced_at is None:
            return "new"
        if self.problem:
            return "failed"
        return "stale" if self.is_stale else "current"

    def __str__(self) -> str:
        return self.name


class Advisory(models.Model):
    """One OSV record of one feed."""

    class Severity(models.TextChoices):
        CRITICAL = "critical"
        HIGH = "high"
        MEDIUM = "medium"
        LOW = "low"
        NONE = "none"
        UNKNOWN = "unknown"

    feed = models.ForeignKey(Feed, on_delete=models.CASCADE, related_name="advisories")
    osv_id = models.CharField(max_length=200)
    directory = models.CharField(max_length=60)  # the ecosystem folder in the feed's export
    modified = models.CharField(max_length=40)  # original text: real feeds contain future and constant dates
    modified_at = models.DateTimeField(null=True)
    published_at = models.DateTimeField(null=True)
    withdrawn_at = models.DateTimeField(null=True)
    tombstoned_at = models.DateTimeField(null=True)  # when it disappeared from its feed
    aliases: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=200), default=list)
    upstream: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=200), default=list)
    related: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=200), default=list)
    summary = models.TextField(blank=True)
    details = models.TextField(blank=True)
    # The severity that counts: the record's own, else that of `severity_source`, an alias, upstream or related record.
    severity = models.CharField(max_length=8, choices=Severity, default=Severity.UNKNOWN)
    own_severity = models.CharField(
        max_length=8, choices=Severity, default=Severity.UNKNOWN, db_default=Severity.UNKNOWN
    )
    severity_source = models.CharField(max_length=200, blank=True, default="", db_default="")  # "": the record itself
    # The name that all records of one vulnerability share, in all feeds: its CVE id if it has one (grouping.py).
    vulnerability = models.CharField(max_length=200, blank=True, default="", db_default="")
    # All CVE ids of it, and those that a bundle (DSA, USN) names: what KEV and EPSS know it by.
    cves: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=200), default=list, db_default=[])
    is_grouped = models.BooleanField(default=False, db_default=False)  # False: stored by an older version
    score = models.FloatField(null=True)  # CVSS base score, 0 to 10; null without a vector
    vector = models.CharField(max_length=200, blank=True)
    references: models.JSONField[Any, Any] = models.JSONField(default=list)
    # versions.KEY_VERSION of its intervals; the next synchronisation reads records of an older one again
    key_version = models.SmallIntegerField(default=current_key_version, db_default=1)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "advisories"
        constraints = (models.UniqueConstraint(fields=("feed", "osv_id"), name="advisory_once_per_feed_and_id"),)
        indexes = (
            models.Index(fields=("osv_id",), name="advisory_by_id"),
            models.Index(fields=("vulnerability",), name="advisory_by_vulnerability"),
            models.Index(fields=("id",), condition=Q(is_grouped=False), name="advisory_ungrouped"),
        )

    def __str__(self) -> str:
        return self.osv_id

    def save(self, *args: Any, **kwargs: Any) -> None:
        # Until `grouping.regroup` has looked at all feeds:
        self.vulnerability = self.vulnerability or self.osv_id
        self.cves = self.cves or [name for name in (self.osv_id, *self.aliases) if name.startswith("CVE-")]
        super().save(*args, **kwargs)

    @property
    def severity_by(self) -> str:
        """The id of the record that states the severity: this one, or another; "" while nobody knows it."""
        return "" if self.severity == self.Severity.UNKNOWN else self.severity_source or self.osv_id

    @property
    def other_names(self) -> list[str]:
        """The record's id and aliases, without the name that is shown first."""
        names = dict.fromkeys((self.osv_id, *self.aliases))
        return [name for name in names if name != self.vulnerability]


class PrivateAdvisory(models.Model):
    """One revision of an OSV record of our own. It matches nothing before a second person approves it."""

    class State(models.TextChoices):
        REQUESTED = "requested"
        LIVE = "live"
        REPLACED = "replaced"  # by a later revision
        REJECTED = "rejected"
        CANCELLED = "cancelled"  # by its author

    # The whole state machine. A state that is not a key here is final.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "requested": frozenset({"live", "rejected", "cancelled"}),
        "live": frozenset({"replaced"}),
    }

    osv_id = models.CharField(max_length=200)
    document: models.JSONField[Any, Any] = models.JSONField()
    state = models.CharField(max_length=9, choices=State)
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    reason = models.TextField(blank=True)  # why, for who approves it
    created_at = models.DateTimeField(auto_now_add=True)
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    decided_at = models.DateTimeField(null=True)
    decision = models.TextField(blank=True)

    class Meta:
        verbose_name_plural = "private advisories"
        constraints = (
            models.UniqueConstraint(
                fields=("osv_id",), condition=Q(state="requested"), name="privateadvisory_one_waits"
            ),
            models.UniqueConstraint(fields=("osv_id",), condition=Q(state="live"), name="privateadvisory_one_is_live"),
        )
        indexes = (models.Index(fields=("osv_id", "-id"), name="privateadvisory_by_id"),)

    def __str__(self) -> str:
        return f"PA-{self.pk}"

    @property
    def is_withdrawal(self) -> bool:
        """Whether the revision says that the record is withdrawn."""
        return bool(self.document.get("withdrawn"))


class AdvisoryName(models.Model):
    """A name in the `aliases`, `upstream` or `related` of an advisory, to find the advisory by it.

    A trigger keeps these rows equal to the arrays (migration 0062). With indexes on the arrays instead, PostgreSQL
    compared the names of each record with each of a thousand ids, and loading 58,000 records took 11 minutes.
    """

    class Kind(models.TextChoices):
        ALIAS = "alias"
        UPSTREAM = "upstream"
        RELATED = "related"

    advisory = models.ForeignKey(Advisory, on_delete=models.CASCADE, related_name="names")
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=8, choices=Kind)

    class Meta:
        indexes = (models.Index(fields=("name", "kind"), name="advisory_by_other_name"),)

    def __str__(self) -> str:
        return self.name


class KnownExploited(models.Model):
    """A CVE that a feed of kind KEV lists as exploited."""

    feed = models.ForeignKey(Feed, on_delete=models.CASCADE, related_name="known_exploited")
    cve = models.CharField(max_length=30)
    added_on = models.DateField()
    due_on = models.DateField(null=True)
    is_ransomware = models.BooleanField(default=False)  # known to be used in ransomware campaigns
    name = models.CharField(max_length=500, blank=True)
    required_action = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name_plural = "known exploited"
        constraints = (models.UniqueConstraint(fields=("cve", "feed"), name="knownexploited_once_per_cve_and_feed"),)

    def __str__(self) -> str:
        return self.cve


class ExploitScore(models.Model):
    """The EPSS score of a CVE, of the day in `Feed.data_at`."""

    feed = models.ForeignKey(Feed, on_delete=models.CASCADE, related_name="exploit_scores")
    cve = models.CharField(max_length=30)
    score = models.FloatField()  # the probability that it is exploited in the next 30 days, 0 to 1
    percentile = models.FloatField()  # the share of all CVEs with the same score or less, 0 to 1

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("cve", "feed"), name="exploitscore_once_per_cve_and_feed"),
            models.CheckConstraint(
                condition=Q(score__range=(0, 1), percentile__range=(0, 1)), name="exploitscore_is_a_share"
            ),
        )

    def __str__(self) -> str:
        return f"{self.cve}: {self.score}"


class AffectedInterval(models.Model):
    """Versions of one package that an advisory affects: a half-open or closed interval of version keys, or a point.

    `low` null is minus infinity, `high` null is plus infinity. Rows of scheme maven have no keys: matching compares the
    texts.
    """

    advisory = models.ForeignKey(Advisory, on_delete=models.CASCADE, related_name="intervals")
    ecosystem = models.CharField(max_length=60)
    # A distribution's release, or the address of a package repository; "" for all of the ecosystem.
    release = models.CharField(max_length=300, blank=True)
    name = models.CharField(max_length=500)
    scheme = models.CharField(max_length=12)
    low = models.BinaryField(null=True)
    low_inclusive = models.BooleanField(default=True)
    high = models.BinaryField(null=True)
    high_inclusive = models.BooleanField(default=False)
    low_text = models.CharField(max_length=500, blank=True)
    high_text = models.CharField(max_length=500, blank=True)
    fixed_version = models.CharField(max_length=500, blank=True)  # version of the `fixed` event at its end, else ""
    exact_version = models.CharField(max_length=500, blank=True)  # an invalid listed version: matched as text
    is_unevaluated = models.BooleanField(default=False)  # an event cannot be read: matches are in state `unknown`
    problem = models.CharField(max_length=300, blank=True, default="", db_default="")  # why; "" if it can be judged

    class Meta:
        indexes = (
            models.Index(fields=("ecosystem", "name", "low"), name="affectedinterval_by_package"),
            models.Index(fields=("advisory",), condition=Q(is_unevaluated=True), name="affectedinterval_unevaluated"),
        )

    def __str__(self) -> str:
        return f"{self.ecosystem} {self.name} [{self.low_text or '0'}, {self.high_text or '∞'})"


class Coverage(models.Model):
    """An ecosystem, and release where it has releases, that some feed has advisories for.

    A package outside of all coverage has no findings because nobody looked, not because there are none.
    """

    ecosystem = models.CharField(max_length=60)
    release = models.CharField(max_length=300, blank=True)

    class Meta:
        verbose_name_plural = "coverage"
        constraints = (
            models.UniqueConstraint(fields=("ecosystem", "release"), name="coverage_once_per_ecosystem_and_release"),
        )

    def __str__(self) -> str:
        return f"{self.ecosystem}:{self.release}" if self.release else self.ecosystem


class Match(models.Model):
    """An advisory that affects a package version, or may affect it. `valid_to` is set when it no longer does.

    `unknown`: it cannot be judged whether the version is affected, for the `reason`. These are no open findings.
    An open match can have a `reason` too: what it assumes.
    """

    class State(models.TextChoices):
        OPEN = "open"
        UNKNOWN = "unknown"

    advisory = models.ForeignKey(Advisory, on_delete=models.CASCADE, related_name="matches")
    package = models.ForeignKey(PackageVersion, on_delete=models.CASCADE, related_name="matches")
    interval_text = models.CharField(max_length=1100, blank=True)  # why it matches, as text for pages
    fixed_version = models.CharField(max_length=500, blank=True)
    severity = models.CharField(max_length=8, choices=Advisory.Severity, default=Advisory.Severity.UNKNOWN)
    state = models.CharField(max_length=8, choices=State, default=State.OPEN, db_default=State.OPEN)
    reason = models.CharField(max_length=300, blank=True, default="", db_default="")
    valid_from = models.DateTimeField(auto_now_add=True)
    valid_to = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "matches"
        constraints = (
            models.UniqueConstraint(
                fields=("advisory", "package"), condition=Q(valid_to=None), name="match_one_live_per_pair"
            ),
            models.CheckConstraint(
                condition=Q(state="open") | (Q(state="unknown", fixed_version="") & ~Q(reason="")),
                name="match_unknown_has_a_reason_and_no_fix",
            ),
        )
        indexes = (models.Index(fields=("package",), condition=Q(valid_to=None), name="match_live_by_package"),)

    def __str__(self) -> str:
        return f"{self.advisory_id} on {self.package_id}"
