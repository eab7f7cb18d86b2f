"""Notices, who was told, how people want to be told, and the messages that are sent."""

from __future__ import annotations

from datetime import time
from typing import Any, ClassVar, cast

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models import Team, User
from lifecycle.core import sealing
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Repository


class Notice(models.Model):
    """Something that people and channels were told about. It is not changed any more."""

    topic = models.CharField(max_length=60)  # the name of a Topic
    key = models.CharField(max_length=160, unique=True)  # the same thing is told once
    thread = models.CharField(max_length=120)  # the object that it is about: promotionrequest-13
    subject = models.CharField(max_length=300)
    text = models.TextField()
    link = models.CharField(max_length=300)  # path of its page
    # What it is about, and who may see it: a repository, what concerns a whole team, or the account of one person.
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="+", null=True, db_index=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+", null=True)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", null=True)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+", null=True)
    actor_name = models.CharField(max_length=150, blank=True)
    facts: models.JSONField[Any, Any] = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(repository=None, team__isnull=False, person=None)
                | Q(repository__isnull=False, team=None, person=None)
                | Q(repository=None, team=None, person__isnull=False),
                name="notice_about_one_thing",
            ),
        )
        indexes = (
            models.Index(fields=("thread", "topic"), name="notice_by_thread"),
            models.Index(fields=("at",), name="notice_by_time"),
            models.Index(fields=("repository",), name="notice_by_repository"),
        )

    def __str__(self) -> str:
        return f"{self.topic} {self.thread}"

    @property
    def owner(self) -> Team:
        """The team that it concerns: that of the repository now. One about an account has none."""
        if self.team is not None:
            return self.team
        return cast(Repository, self.repository).team  # notice_about_one_thing

    @property
    def repository_name(self) -> str:
        """The name of the repository; "" when it is about a whole team."""
        return self.repository.name if self.repository is not None else ""


class InboxItem(models.Model):
    """A notice in the list of one person."""

    notice = models.ForeignKey(Notice, on_delete=models.CASCADE, related_name="items")
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notices", db_index=False)
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("notice", "person"), name="inboxitem_once_per_person"),)
        indexes = (
            models.Index(fields=("person", "-id"), name="inboxitem_newest_first"),
            models.Index(fields=("person", "-id"), condition=Q(read_at=None), name="inboxitem_unread"),
        )

    def __str__(self) -> str:
        return f"{self.notice} for {self.person}"


class Preferences(models.Model):
    """How one person wants to be told. Without a row, the defaults of the topics apply."""

    class Digest(models.TextChoices):
        OFF = "off", "As it happens"
        DAILY = "daily", "Once a day"

    person = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="notice_preferences")
    choices: models.JSONField[Any, Any] = models.JSONField(default=dict)  # {topic: {"inbox": true, "mail": false}}
    digest = models.CharField(max_length=5, choices=Digest, default=Digest.OFF)
    digest_at = models.TimeField(default=time(8))
    quiet_from = models.TimeField(null=True, blank=True)  # no mail between these times
    quiet_until = models.TimeField(null=True, blank=True)
    time_zone = models.CharField(max_length=63, blank=True)  # "": that of the profile

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(quiet_from=None, quiet_until=None) | Q(quiet_from__isnull=False, quiet_until__isnull=False),
                name="preferences_quiet_hours_have_both_ends",
            ),
        )

    def __str__(self) -> str:
        return f"notices of {self.person_id}"


class Mute(models.Model):
    """No mail about something until a time; its notices arrive as read."""

    class Scope(models.TextChoices):
        ALL = "all", "Everything"
        REPOSITORY = "repository", "One repository"
        THREAD = "thread", "One promotion, waiver or quarantine"
        TOPIC = "topic", "One topic"

    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notice_mutes")
    scope = models.CharField(max_length=10, choices=Scope)
    value = models.CharField(max_length=255, blank=True)  # repository, thread or topic; "" for everything
    until = models.DateTimeField()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("person", "scope", "value"), name="mute_once_per_person_and_value"),
            models.CheckConstraint(condition=Q(scope="all", value="") | (~Q(scope="all") & ~Q(value="")),
                                   name="mute_names_what_it_is_about"),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.scope} {self.value}".strip()


class Channel(models.Model):
    """A webhook or a chat to which notices of a team go, or those of all teams (without `team`)."""

    class Kind(models.TextChoices):
        WEBHOOK = "webhook", "Webhook"
        CHAT = "chat", "Chat"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="channels", null=True, blank=True)
    name = models.CharField(max_length=60)
    kind = models.CharField(max_length=7, choices=Kind)
    host = models.CharField(max_length=200, blank=True)  # of the address, which is a secret as a whole
    address_sealed = models.BinaryField(default=b"")  # sealed for this row: core/sealing.py
    secret_sealed = models.BinaryField(default=b"")  # signs what a webhook sends
    topics: ArrayField[Any, Any] = ArrayField(models.CharField(max_length=60))
    is_enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=300, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    revision = models.PositiveIntegerField(default=1)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("team", "name"), nulls_distinct=False, name="channel_once_per_team_and_name"
            ),
            models.CheckConstraint(
                condition=Q(is_enabled=True, disabled_at=None) | Q(is_enabled=False, disabled_at__isnull=False),
                name="channel_disabled_since",
            ),
        )

    def __str__(self) -> str:
        return self.name


sealing.register_field(Channel, "address_sealed")
sealing.register_field(Channel, "secret_sealed")


class Message(models.Model):
    """One message to one place: the mail of a person, or a channel. Its job sends it, and tries again for a day.

    While it waits, notices of the same thread are added to it, so that many at once are one message.
    """

    class Kind(models.TextChoices):
        NOTICE = "notice"
        DIGEST = "digest"
        TEST = "test"

    class State(models.TextChoices):
        WAITING = "waiting"
        SENDING = "sending"
        RETRYING = "retrying"
        SENT = "sent"
        FAILED = "failed"
        SKIPPED = "skipped"  # there was nothing to say any more

    NEXT: ClassVar[dict[str, frozenset[str]]] = {
        "waiting": frozenset({"sending", "skipped", "failed"}),
        "sending": frozenset({"sending", "retrying", "sent", "failed"}),
        "retrying": frozenset({"sending", "skipped", "failed"}),
        "sent": frozenset({"retrying"}),  # a person sends it again
        "failed": frozenset({"retrying"}),
    }

    key = models.CharField(max_length=32, unique=True)  # the receiver sees the same in each attempt
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", null=True, db_index=False)
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="messages", null=True, db_index=False)
    kind = models.CharField(max_length=6, choices=Kind, default=Kind.NOTICE)
    thread = models.CharField(max_length=120, blank=True)  # "" for a digest
    notices: models.ManyToManyField[Notice, Any] = models.ManyToManyField(Notice, related_name="messages")
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    due_at = models.DateTimeField()
    attempts = models.IntegerField(default=0)
    first_attempt_at = models.DateTimeField(null=True, blank=True)
    last_status = models.IntegerField(null=True, blank=True)  # of SMTP or HTTP
    last_error = models.CharField(max_length=500, blank=True)
    subject = models.CharField(max_length=300, blank=True)  # as sent
    body = models.TextField(blank=True)  # as sent
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("person", "kind", "thread"),
                condition=Q(state="waiting", kind__in=("notice", "digest")),
                name="message_one_waiting_per_person_and_thread",
            ),
            models.UniqueConstraint(
                fields=("channel", "kind", "thread"),
                condition=Q(state="waiting", kind="notice"),
                name="message_one_waiting_per_channel_and_thread",
            ),
            models.CheckConstraint(
                condition=Q(person=None, channel__isnull=False) | Q(person__isnull=False, channel=None),
                name="message_has_one_place",
            ),
        )
        indexes = (
            models.Index(fields=("person", "-id"), name="message_by_person"),
            models.Index(fields=("channel", "-id"), name="message_by_channel"),
            models.Index(fields=("created_at",), name="message_by_time"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"

    @property
    def is_final(self) -> bool:
        """Whether no attempt follows, unless somebody sends it again."""
        return self.state in {self.State.SENT, self.State.FAILED, self.State.SKIPPED}
