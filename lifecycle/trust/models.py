"""Trusted sources with their signers, and what was verified about images."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q, Value
from django.utils import timezone

from accounts.models import Team, User
from lifecycle.core import sealing
from lifecycle.registry.models import Image, Repository
from lifecycle.trust.constants import KEY_PLACES


class TrustedSource(models.Model):
    """Places that base images may come from, and who must have signed them.

    A site-wide source is for all teams. Any other one is for its teams only: without teams it is for nobody.
    """

    name = models.SlugField(max_length=60, unique=True)
    description = models.CharField(max_length=300, blank=True)
    # Patterns over host and repository, `docker.io/library/*`; * matches any characters (docs/adr/0007).
    places: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=300))
    is_site_wide = models.BooleanField(default=False)
    teams: models.ManyToManyField[Team, Any] = models.ManyToManyField(Team, related_name="+", blank=True)
    # With signers removed, such a source trusts nothing, instead of everything in its places.
    needs_signature = models.BooleanField(default=True)
    valid_from = models.DateTimeField(default=timezone.now)
    revision = models.IntegerField(default=1)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(places__len__gte=1), name="trustedsource_has_a_place"),)

    def __str__(self) -> str:
        return self.name


class TrustedSigner(models.Model):
    """A key, a keyless identity, or certificates of notation, that a source trusts."""

    class Kind(models.TextChoices):
        KEY = "key", "Public key"
        KEYLESS = "keyless", "Keyless identity"
        NOTATION = "notation", "Notation certificate"

    source = models.ForeignKey(TrustedSource, on_delete=models.CASCADE, related_name="signers")
    kind = models.CharField(max_length=8, choices=Kind)
    name = models.CharField(max_length=100, blank=True)
    pem = models.TextField(blank=True)  # of a key, or of the certificates that notation chains must lead to
    fingerprint = models.CharField(max_length=71, blank=True)  # of the key; sha256 of all that decides, for the others
    issuer = models.CharField(max_length=500, blank=True)
    subject = models.CharField(max_length=500, blank=True)  # keyless identity, or a notation certificate's subject
    is_pattern = models.BooleanField(default=False)
    trusted_root = models.TextField(blank=True)  # a private sigstore instance; "" means the public one
    added_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("source", "fingerprint"), name="trustedsigner_once_per_source"),
            models.CheckConstraint(
                condition=~Q(kind="keyless") | (~Q(issuer="") & ~Q(subject="")), name="trustedsigner_keyless_is_named"
            ),
            models.CheckConstraint(condition=Q(kind="keyless") | ~Q(pem=""), name="trustedsigner_key_is_there"),
        )

    def __str__(self) -> str:
        if self.kind == self.Kind.KEYLESS:
            return f"{self.subject} ({self.issuer})"
        return self.name or f"key {self.fingerprint[:19]}"


class Signature(models.Model):
    """One signature or attestation of an image, as it was found in a registry, and whether it verified.

    `signers` are the trusted signers who made it. A signer that is removed from its source takes its matches along, so
    a revoked key counts for nothing at once. Rows are replaced when the image is checked again.
    """

    class Format(models.TextChoices):
        BUNDLE = "bundle", "Sigstore bundle"
        SIMPLE_SIGNING = "simplesigning", "Cosign signature"
        DSSE = "dsse", "DSSE envelope"
        NOTATION = "notation", "Notation signature"
        BUILDKIT = "buildkit", "BuildKit attestation"

    class State(models.TextChoices):
        VERIFIED = "verified"  # by at least one trusted signer of that time
        UNKNOWN_SIGNER = "unknown"  # by nobody that a source trusts
        REFUSED = "refused"
        UNSIGNED = "unsigned"  # a bare statement: anybody who can push could have written it

    image = models.ForeignKey(Image, on_delete=models.CASCADE, related_name="signatures", db_index=False)
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+", db_index=False)
    manifest_digest = models.CharField(max_length=135)  # the manifest that holds it
    object_digest = models.CharField(max_length=135)  # its content
    position = models.IntegerField(default=0)
    format = models.CharField(max_length=13, choices=Format)
    predicate_type = models.CharField(max_length=300, blank=True)  # "" for a signature
    state = models.CharField(max_length=8, choices=State)
    reason = models.CharField(max_length=500, blank=True)  # why it does not count; "" when verified
    key_fingerprint = models.CharField(max_length=71, blank=True)
    identity = models.CharField(max_length=500, blank=True)
    issuer = models.CharField(max_length=500, blank=True)
    signed_at = models.DateTimeField(null=True, blank=True)  # proven by a log or a time stamp
    builder_id = models.CharField(max_length=500, blank=True)  # of a SLSA provenance
    source_uri = models.CharField(max_length=500, blank=True)
    signers: models.ManyToManyField[TrustedSigner, Any] = models.ManyToManyField(TrustedSigner, related_name="+")
    checked_at = models.DateTimeField()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("image", "repository", "manifest_digest", "position"), name="signature_once_per_place"
            ),
        )
        indexes = (models.Index(fields=("repository",), name="signature_by_repository"),)

    def __str__(self) -> str:
        return f"{self.format} {self.object_digest[:19]} of {self.image_id}"


class Attestation(models.Model):
    """The content of an attestation: its predicate, when it is small enough to keep."""

    signature = models.OneToOneField(Signature, on_delete=models.CASCADE, related_name="attestation")
    predicate: models.JSONField[Any, Any] = models.JSONField(null=True)  # null: larger than PREDICATE_MAX_BYTES
    size_bytes = models.BigIntegerField()

    def __str__(self) -> str:
        return f"predicate of {self.signature_id}"


class TrustCheck(models.Model):
    """When the signatures of an image were last read from the registry and verified."""

    image = models.OneToOneField(Image, on_delete=models.CASCADE, primary_key=True, related_name="trust_check")
    is_due = models.BooleanField(default=True)  # waits for a check: new, or a source has changed
    checked_at = models.DateTimeField(null=True, blank=True)
    # Why the last check could not be finished. It names no repository: everybody who sees the image reads it.
    problem = models.CharField(max_length=300, blank=True)
    # What could not be read where: [{"repository": id, "text": why}]. Only who sees the repository is told.
    unread = models.JSONField(default=list, db_default=Value([], models.JSONField()))

    class Meta:
        indexes = (models.Index(fields=("image",), condition=Q(is_due=True), name="trustcheck_due"),)

    def __str__(self) -> str:
        return f"signatures of {self.image_id}"


class SigningKey(models.Model):
    """A key with which we sign what we promote. All that are not retired sign; what retired ones signed stays valid."""

    name = models.SlugField(max_length=60, unique=True)
    public_key = models.TextField()  # PEM
    fingerprint = models.CharField(max_length=71, unique=True)
    private_sealed = models.BinaryField(default=b"")  # PKCS #8, sealed for this row: core/sealing.py
    # Where the private key is, when it is not here: trust/signers.py. It holds no secret.
    uri = models.CharField(max_length=500, blank=True, default="", db_default="")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """`active` while it signs, then `retired`."""
        return "retired" if self.retired_at is not None else "active"

    @property
    def place(self) -> str:
        """Where the private part is, in words. The URI itself is only for who runs the server."""
        return KEY_PLACES[self.uri.partition(":")[0]]


sealing.register_field(SigningKey, "private_sealed")
