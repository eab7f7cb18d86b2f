"""VEX documents, their statements and our own decisions, and which of them counts for each finding of an image."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q

from accounts.models import Team, User
from lifecycle.registry.models import Image, Repository
from lifecycle.sbom.models import PackageVersion
from lifecycle.trust.models import TrustedSigner
from lifecycle.vex.constants import JUSTIFICATIONS, SUPPRESSING


class VexFeed(models.Model):
    """An address that VEX documents are read from on a schedule. They count only while a second person trusts it."""

    name = models.CharField(max_length=60)
    # Whose images its documents are about; null: all images. Only admins add feeds about all images.
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+", null=True)
    location = models.CharField(max_length=500)  # https address of a document, or of a folder: feed_reading.is_folder
    public_key = models.TextField(blank=True)  # PEM; each document then needs a detached signature by it
    # What it can speak for: beginnings of package URLs; empty: everything.
    speaks_for: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=500), default=list, blank=True)
    every_hours = models.PositiveSmallIntegerField(null=True)  # null: only by hand
    due_at = models.DateTimeField(null=True)  # the next time, with jitter
    added_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    trusted_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    trusted_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    tried_at = models.DateTimeField(null=True)
    synced_at = models.DateTimeField(null=True)  # when it was last read without a problem
    problem = models.CharField(max_length=500, blank=True)  # of the last run; "": none
    result: models.JSONField[Any, Any] = models.JSONField(default=dict)  # counts of the last run
    revision = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(trusted_by=None, trusted_at=None)
                | (Q(trusted_at__isnull=False) & Q(trusted_by__isnull=False) & ~Q(trusted_by=F("added_by"))),
                name="vexfeed_trusted_by_a_second_person",
            ),
            models.UniqueConstraint(
                fields=("team", "name"), nulls_distinct=False, name="vexfeed_once_per_team_and_name"
            ),
        )
        indexes = (models.Index(fields=("due_at",), condition=Q(due_at__isnull=False), name="vexfeed_by_due_time"),)

    def __str__(self) -> str:
        return self.name

    @property
    def is_trusted(self) -> bool:
        """Whether its documents count."""
        return self.trusted_by_id is not None

    @property
    def state(self) -> str:
        """Return "new" before the first run, "failed" after one with a problem, else "current"."""
        if self.tried_at is None:
            return "new"
        return "failed" if self.problem else "current"


class VexDocument(models.Model):
    """A VEX document as somebody sent it. Its statements count only while it is `applied`."""

    class Format(models.TextChoices):
        OPENVEX = "openvex", "OpenVEX"
        CYCLONEDX = "cyclonedx", "CycloneDX"
        CSAF = "csaf", "CSAF"

    class State(models.TextChoices):
        ADVICE = "advice"  # shown, and changes nothing
        APPLIED = "applied"
        REPLACED = "replaced"  # by a newer version
        WITHDRAWN = "withdrawn"

    # The whole state machine. A state that is not a key here is final.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "advice": frozenset({"applied", "replaced", "withdrawn"}),
        "applied": frozenset({"advice", "replaced", "withdrawn"}),
    }

    # Whose images it is about; null: all images. Only admins bring documents about all images.
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+", null=True)
    # The image that it was found attached to, as an attestation: it is about nothing else. Null: somebody sent it.
    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="vex_documents", null=True)
    # The feed that it was read from. Null: not from a feed, or the feed was removed, and the document withdrawn.
    feed = models.ForeignKey(VexFeed, on_delete=models.SET_NULL, related_name="documents", null=True)
    # The trusted signers who signed it. One that is removed from its source takes its trust along.
    signers: models.ManyToManyField[TrustedSigner, Any] = models.ManyToManyField(TrustedSigner, related_name="+")
    format = models.CharField(max_length=9, choices=Format)
    name = models.CharField(max_length=500, blank=True)  # its own id
    author = models.CharField(max_length=300, blank=True)  # as it claims
    version = models.CharField(max_length=60, blank=True)
    issued_at = models.DateTimeField(null=True)
    digest = models.CharField(max_length=71)  # of the bytes as sent
    content = models.BinaryField()  # as sent, compressed by zlib
    state = models.CharField(max_length=9, choices=State, default=State.ADVICE)
    why_advice = models.CharField(max_length=500, blank=True)  # why it does not count; "" while it is applied
    statement_count = models.IntegerField(default=0)
    refused_count = models.IntegerField(default=0)
    refused: models.JSONField[Any, Any] = models.JSONField(default=list)  # the first ones: [position, reason]
    uploaded_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    accepted_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True)  # when it was accepted, replaced or withdrawn

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(accepted_by=None) | ~Q(accepted_by=F("uploaded_by")),
                name="vexdocument_accepted_by_a_second_person",
            ),
        )
        indexes = (
            models.Index(fields=("team", "-id"), name="vexdocument_by_team"),
            models.Index(fields=("digest",), name="vexdocument_by_digest"),
        )

    def __str__(self) -> str:
        return f"VD-{self.pk}"


class VexFeedFile(models.Model):
    """A file of a feed, and what its server said of it: an unchanged one is not fetched or read again."""

    feed = models.ForeignKey(VexFeed, on_delete=models.CASCADE, related_name="files", db_index=False)
    path = models.CharField(max_length=500)  # below the folder of the feed; "" for a feed of one document
    etag = models.CharField(max_length=200, blank=True)
    modified = models.CharField(max_length=100, blank=True)  # the header Last-Modified, as it came
    listed = models.CharField(max_length=64, blank=True)  # its time in the feed's changes.csv; "" without one
    document = models.ForeignKey(VexDocument, on_delete=models.SET_NULL, related_name="+", null=True)
    problem = models.CharField(max_length=500, blank=True)  # why it says nothing; "": it is read

    class Meta:
        constraints = (models.UniqueConstraint(fields=("feed", "path"), name="vexfeedfile_once_per_feed_and_path"),)

    def __str__(self) -> str:
        return self.path


class VexStatement(models.Model):
    """What somebody says of one vulnerability in some images: a decision of ours, or a statement of a document."""

    class Status(models.TextChoices):
        NOT_AFFECTED = "not_affected", "Not affected"
        FALSE_POSITIVE = "false_positive", "False positive"
        FIXED = "fixed", "Fixed"
        UNDER_INVESTIGATION = "under_investigation", "Under investigation"
        AFFECTED = "affected", "Affected"

    class Scope(models.TextChoices):
        DIGEST = "digest", "This digest"
        REPOSITORY = "repository", "All images of the repository"
        TEAM = "team", "All images of the team"
        ALL = "all", "All images"

    class State(models.TextChoices):
        REQUESTED = "requested"  # a second person must approve it
        LIVE = "live"
        ADVICE = "advice"  # of a document that is not applied
        REJECTED = "rejected"
        WITHDRAWN = "withdrawn"
        EXPIRED = "expired"

    # The whole state machine. A state that is not a key here is final.
    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "requested": frozenset({"live", "rejected", "withdrawn", "expired"}),
        "live": frozenset({"withdrawn", "expired", "advice"}),
        "advice": frozenset({"live", "withdrawn"}),
    }

    document = models.ForeignKey(VexDocument, on_delete=models.CASCADE, related_name="statements", null=True)
    position = models.CharField(max_length=200, blank=True)  # in the document
    names: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=200))  # of the vulnerability
    status = models.CharField(max_length=19, choices=Status)
    justification = models.CharField(max_length=60, blank=True, choices=list(JUSTIFICATIONS.items()))
    reason = models.TextField(blank=True)
    said_at = models.DateTimeField()  # the newest counts; never later than when it came here
    # Of a document: types.Product.as_json, one each.
    products: models.JSONField[Any, Any] = models.JSONField(default=list)
    # Of a decision:
    scope = models.CharField(max_length=10, choices=Scope, blank=True)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+", null=True)
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+", null=True)
    digest = models.CharField(max_length=135, blank=True)
    package = models.CharField(max_length=4096, blank=True)  # a package URL, perhaps without version; "": all packages
    until = models.DateTimeField(null=True)
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    decision = models.TextField(blank=True)  # what the second person wrote, or why it ended
    state = models.CharField(max_length=9, choices=State)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(document__isnull=False, scope="", author=None)
                | (Q(document=None, author__isnull=False) & ~Q(scope="")),
                name="vexstatement_of_a_document_or_a_person",
            ),
            models.CheckConstraint(
                condition=~Q(scope__in=("repository", "digest")) | Q(repository__isnull=False, team__isnull=False),
                name="vexstatement_scope_has_repository",
            ),
            models.CheckConstraint(
                condition=(~Q(scope="team") | Q(team__isnull=False)) & (~Q(scope="all") | Q(team=None)),
                name="vexstatement_scope_has_team",
            ),
            models.CheckConstraint(condition=Q(scope="digest") ^ Q(digest=""), name="vexstatement_scope_has_digest"),
            models.CheckConstraint(
                condition=Q(decided_by=None) | ~Q(decided_by=F("author")) | ~Q(state="live"),
                name="vexstatement_approved_by_a_second_person",
            ),
            models.CheckConstraint(
                condition=Q(ended_at=None, state__in=("requested", "live", "advice"))
                | Q(ended_at__isnull=False, state__in=("rejected", "withdrawn", "expired")),
                name="vexstatement_ended_exactly_when_final",
            ),
        )
        indexes = (
            GinIndex(fields=("names",), name="vexstatement_by_names"),
            models.Index(fields=("team", "-id"), condition=Q(document=None), name="vexstatement_by_team"),
            models.Index(fields=("until",), condition=Q(ended_at=None), name="vexstatement_open_by_end"),
            models.Index(fields=("state",), condition=Q(state="live"), name="vexstatement_live"),
        )

    def __str__(self) -> str:
        return f"VEX-{self.pk}"

    @property
    def vulnerability(self) -> str:
        """The main name of the vulnerability."""
        name: str = self.names[0]
        return name

    @property
    def suppresses(self) -> bool:
        """Whether a finding with this statement is not open."""
        return self.status in SUPPRESSING

    @property
    def scope_words(self) -> str:
        """What a decision covers: "sha256:1234 in shop/api"."""
        if self.scope == self.Scope.ALL:
            return "all images"
        if self.scope == self.Scope.TEAM and self.team is not None:
            return f"all images of team {self.team.slug}"
        name = self.repository.name if self.repository is not None else ""
        return f"{self.digest[:19]} in {name}" if self.digest else f"all images of {name}"

    @property
    def said_by(self) -> str:
        """Who says it: a person, or the author that a document claims."""
        if self.document is not None:
            return self.document.author or self.document.name
        return self.author.username if self.author is not None else ""


class VexEffect(models.Model):
    """The statement that counts for a vulnerability in a package version of a platform manifest.

    Only pairs that a live statement names have a row, so this stays small. `effects.refresh` writes it whenever the
    counts of an image are made again; the counts, lists and gates all read it (evidence/open_findings.py).
    """

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="vex_effects", db_index=False)
    package = models.ForeignKey(PackageVersion, on_delete=models.CASCADE, related_name="+", db_index=False)
    vulnerability = models.CharField(max_length=200)  # as in Advisory.vulnerability
    statement = models.ForeignKey(VexStatement, on_delete=models.CASCADE, related_name="effects")
    # The base image that the statement is about; null when it is about this image itself.
    inherited_from = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="+", null=True)
    suppresses = models.BooleanField()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("image", "package", "vulnerability"), name="vexeffect_once_per_image_package_and_vulnerability"
            ),
        )
        indexes = (models.Index(fields=("vulnerability",), name="vexeffect_by_vulnerability"),)

    def __str__(self) -> str:
        return f"{self.statement_id} for {self.vulnerability} in {self.image_id}"
