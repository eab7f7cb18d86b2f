"""The sealed log. Only the sealer writes these rows, as the owner of the tables; every other process reads them."""

from __future__ import annotations

from django.db import models

from accounts.models import User


class LogOrigin(models.Model):
    """One log: what its first entry says, and the key that signs it. The newest one grows."""

    class Why(models.TextChoices):
        STARTED = "started"
        RESTORED = "restored"  # the database was smaller than a checkpoint that had been published
        KEY_CHANGED = "key_changed"

    number = models.PositiveIntegerField(unique=True)  # 1, and one more for each log that follows
    name = models.CharField(max_length=255, unique=True)  # the first line of each checkpoint
    key = models.TextField()  # name+id+public key
    why = models.CharField(max_length=11, choices=Why)
    previous = models.CharField(max_length=255, blank=True)  # the origin that it follows
    previous_size = models.BigIntegerField(null=True)  # the largest size of it that is known from outside
    previous_root = models.BinaryField(null=True)
    restored_size = models.BigIntegerField(null=True)  # what the database had of it
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class SealedEntry(models.Model):
    """One entry of a log: the exact bytes whose hash is a leaf of the tree."""

    origin = models.ForeignKey(LogOrigin, on_delete=models.PROTECT, related_name="+", db_index=False)
    index = models.BigIntegerField()  # from 0, without gaps
    event_id = models.BigIntegerField(null=True, unique=True)  # null for the first entry of a log
    hash = models.BinaryField()
    entry = models.BinaryField()

    class Meta:
        verbose_name_plural = "sealed entries"
        constraints = (models.UniqueConstraint(fields=("origin", "index"), name="sealedentry_once_per_index"),)

    def __str__(self) -> str:
        return f"{self.origin_id}/{self.index}"


class LogTile(models.Model):
    """Up to 256 hashes of one level of a tree: level 0 those of entries."""

    origin = models.ForeignKey(LogOrigin, on_delete=models.PROTECT, related_name="+", db_index=False)
    level = models.SmallIntegerField()
    number = models.BigIntegerField()
    hashes = models.BinaryField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("origin", "level", "number"), name="logtile_once_per_place"),)

    def __str__(self) -> str:
        return f"{self.origin_id}/{self.level}/{self.number}"


class LogCheckpoint(models.Model):
    """A signed head of a log. It is signed in the transaction that seals its entries."""

    origin = models.ForeignKey(LogOrigin, on_delete=models.PROTECT, related_name="+", db_index=False)
    size = models.BigIntegerField()
    root = models.BinaryField()
    note = models.TextField()
    at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("origin", "size"), name="logcheckpoint_once_per_size"),)
        indexes = (models.Index(fields=("at",), name="logcheckpoint_by_time"),)

    def __str__(self) -> str:
        return f"{self.origin_id}: {self.size}"


class SubjectHead(models.Model):
    """The newest entry about one subject: an image, environment, request, team or person."""

    origin = models.ForeignKey(LogOrigin, on_delete=models.PROTECT, related_name="+", db_index=False)
    kind = models.CharField(max_length=20)
    key = models.CharField(max_length=150)
    count = models.BigIntegerField()  # the running number of that entry
    index = models.BigIntegerField()
    hash = models.BinaryField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("origin", "kind", "key"), name="subjecthead_once"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class EventSalt(models.Model):
    """The salts of an event's personal texts. An erased one is all zeros: nobody can test a guess any more."""

    event_id = models.BigIntegerField(primary_key=True)
    salts = models.BinaryField()  # 16 bytes for each of entries.HASHED

    def __str__(self) -> str:
        return str(self.event_id)


class Pseudonym(models.Model):
    """The stable name of an account in the log. Once it is erased, nothing leads to the account."""

    user = models.OneToOneField(User, on_delete=models.PROTECT, related_name="+", null=True)
    code = models.CharField(max_length=24, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    erased_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.code


class Anchor(models.Model):
    """A place outside of the database that gets checkpoints, and the last one it got."""

    class Kind(models.TextChoices):
        OCI = "oci", "Managed registry"
        FOLDER = "folder", "Folder"
        SYSLOG = "syslog", "Syslog"
        MAIL = "mail", "Mail"

    name = models.CharField(max_length=60, unique=True)
    kind = models.CharField(max_length=6, choices=Kind)
    target = models.CharField(max_length=300)  # repository, folder below ANCHOR_FOLDER, udp|tcp://host:port, address
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)  # null: by us
    created_at = models.DateTimeField(auto_now_add=True)
    origin = models.CharField(max_length=255, blank=True)
    size = models.BigIntegerField(default=0)
    anchored_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=300, blank=True)  # of the last try, "" when it succeeded

    def __str__(self) -> str:
        return self.name


class LogCheck(models.Model):
    """One time that the whole log was derived again, and what was wrong first."""

    at = models.DateTimeField(auto_now_add=True)
    entries = models.BigIntegerField()
    seconds = models.FloatField()
    problem = models.CharField(max_length=400, blank=True)  # "" when nothing was

    class Meta:
        indexes = (models.Index(fields=("-at",), name="logcheck_by_time"),)

    def __str__(self) -> str:
        return self.problem or "all right"
