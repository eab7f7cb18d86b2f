"""People, teams, roles and tokens. No model here refers to images."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from accounts.verbs import Verb

# A team's slug is the first part of its repositories' names. It must be one path component of the distribution-spec;
# of the separators allowed there, it uses only the single hyphen.
TEAM_SLUG = RegexValidator(r"^[a-z0-9]+(-[a-z0-9]+)*\Z", "Lower-case letters and digits, single hyphens between them.")


class User(AbstractUser):
    """An account: a person, a robot of a team, or the system user (Gravingdock itself).

    `username` is the stable name: registry tokens contain it as `sub`, and audit events as the actor.
    """

    class Kind(models.TextChoices):
        PERSON = "person"
        ROBOT = "robot"
        SYSTEM = "system"  # Gravingdock's own workers; never signs in and has no tokens

    kind = models.CharField(max_length=8, choices=Kind, default=Kind.PERSON)
    theme = models.CharField(max_length=6, default="system")  # system, light or dark
    full_name = models.CharField(max_length=120, blank=True)
    # When an admin confirmed `email`. Two accounts with one verified mail belong to one person.
    email_verified_at = models.DateTimeField(null=True, blank=True)
    time_zone = models.CharField(max_length=63, default="UTC")  # for the times on pages; a name of the IANA database
    must_change_password = models.BooleanField(default=False)  # before anything else
    # Another user who has seen the current password. Votes of this account do not count until it is changed.
    secret_seen_by = models.ForeignKey("self", on_delete=models.PROTECT, related_name="+", null=True, blank=True)

    def __str__(self) -> str:
        return self.username

    @property
    def is_person(self) -> bool:
        """Whether this account belongs to a human. Only votes of people count."""
        return self.kind == self.Kind.PERSON

    @property
    def initials(self) -> str:
        """Two capital letters, for the avatar next to the name."""
        parts = [part for part in self.username.replace("_", "-").replace(".", "-").split("-") if part]
        letters = parts[0][:1] + parts[1][:1] if len(parts) > 1 else self.username[:2]
        return letters.upper()


class AccountLink(models.Model):
    """A link that lets one person set the password of one account, once. Only the SHA-256 of its text is stored."""

    class Kind(models.TextChoices):
        INVITATION = "invitation"  # of a new or reactivated account
        RESET = "reset"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="links")
    kind = models.CharField(max_length=10, choices=Kind)
    secret_sha256 = models.BinaryField(max_length=32, unique=True)
    made_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    made_from = models.GenericIPAddressField(null=True)  # the address of the browser that created it
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)  # used, or replaced by a newer link

    def __str__(self) -> str:
        return f"{self.kind} of {self.user}"


class IdentityReset(models.Model):
    """An admin changed how a person signs in, and so could have signed in as that person (docs/adr/0025)."""

    class Kind(models.TextChoices):
        PASSWORD = "password"  # noqa: S105 -- a kind: reset, or set anew when the account was reactivated
        FACTORS = "factors"  # every second factor was removed
        IDENTITY = "identity"  # a provider that the admin added was linked to the account by its mail

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="identity_resets")
    made_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=8, choices=Kind)
    at = models.DateTimeField()  # of the reset, or of the first use of what it gave
    ended_at = models.DateTimeField(null=True, blank=True)  # the person proved who they are with an older factor

    class Meta:
        constraints = (
            models.CheckConstraint(condition=~Q(user=models.F("made_by")), name="identityreset_is_by_somebody_else"),
        )

    def __str__(self) -> str:
        return f"{self.kind} of {self.user}, reset by {self.made_by}"


class Identity(models.Model):
    """A person at a provider of sign-in: `issuer` and `subject` together, never the mail or the name.

    A row is kept when the identity is unlinked, because two accounts that had one identity belong to one person.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="identities")
    issuer = models.CharField(max_length=300)
    subject = models.CharField(max_length=255)
    # Lower-case mail that the provider verified, at the last sign-in; "" without one.
    verified_mail = models.CharField(max_length=254, blank=True)
    # Values of the claims that rules read, at the last sign-in: {path: [value, ...]}, to preview changes of rules.
    claims = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)  # unlinked

    class Meta:
        verbose_name_plural = "identities"
        constraints = (
            models.UniqueConstraint(
                fields=("issuer", "subject"), condition=Q(ended_at=None), name="identity_once_while_it_is_linked"
            ),
        )
        indexes = (models.Index(fields=("issuer", "subject"), name="identity_by_issuer_and_subject"),)

    def __str__(self) -> str:
        return f"{self.user} at {self.issuer}"


class Team(models.Model):
    """A group of people that owns environments, robots, and the repositories below its slug."""

    slug = models.CharField(max_length=60, unique=True, validators=[TEAM_SLUG])
    name = models.CharField(max_length=120)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)
        default_permissions = ()
        permissions = tuple((verb.codename, f"May {verb.value}") for verb in Verb)

    def __str__(self) -> str:
        return self.slug


class Membership(models.Model):
    """The membership of a user in a team. Role grants define what the user can do there."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("team", "user"), name="membership_once_per_team_and_user"),)

    def __str__(self) -> str:
        return f"{self.user} in {self.team}"


class Role(models.Model):
    """A named set of verbs, for all teams. Built-in roles cannot be changed. Admins create custom roles."""

    slug = models.CharField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    verbs: ArrayField[Any, Any] = ArrayField(
        models.CharField(max_length=40, choices=[(v.value, v.value) for v in Verb])
    )
    is_builtin = models.BooleanField(default=False)

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.slug


class Group(models.Model):
    """A named set of people that can hold roles, of one team or of the whole installation.

    A group can contain other groups, one level deep: their members count as its members.
    """

    class Source(models.TextChoices):
        MANUAL = "manual"  # people add and remove the members
        SSO = "sso"  # the members come from sign-in with a provider, by rules

    slug = models.CharField(max_length=60, validators=[TEAM_SLUG])
    name = models.CharField(max_length=120)
    # Null: a group of the installation. It can hold roles in every team.
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="groups", null=True, blank=True)
    source = models.CharField(max_length=6, choices=Source, default=Source.MANUAL)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)
        constraints = (
            models.UniqueConstraint(fields=("team", "slug"), nulls_distinct=False, name="group_once_per_team_and_slug"),
        )

    def __str__(self) -> str:
        return f"{self.team.slug}/{self.slug}" if self.team is not None else self.slug


class GroupMember(models.Model):
    """A member of a group: a person, or another group without groups of its own."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="group_memberships", null=True)
    member = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="containers", null=True)
    added_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    # Slug of the provider whose claims gave the membership at sign-in; "": a person added the member.
    provider = models.CharField(max_length=60, blank=True, db_default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(user__isnull=False, member=None) | Q(user=None, member__isnull=False),
                name="groupmember_is_a_user_or_a_group",
            ),
            models.CheckConstraint(condition=~Q(member=models.F("group")), name="groupmember_is_not_its_own_group"),
            models.UniqueConstraint(
                fields=("group", "user"), condition=Q(member=None), name="groupmember_once_per_group_and_user"
            ),
            models.UniqueConstraint(
                fields=("group", "member"), condition=Q(user=None), name="groupmember_once_per_group_and_member"
            ),
        )

    def __str__(self) -> str:
        return f"{self.user or self.member} in {self.group}"


class Robot(models.Model):
    """A machine account of one team. Its grants, tokens and actions belong to its `user` row."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="robot")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="robots")
    name = models.CharField(max_length=60)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    # The user whose rights bound those of the robot, at first its creator. The robot is suspended while this account is
    # inactive or absent, until another user takes the robot over.
    responsible = models.ForeignKey(User, on_delete=models.PROTECT, related_name="robots_answered_for", null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("team", "name"), name="robot_once_per_team_and_name"),)

    def __str__(self) -> str:
        return self.user.username

    @property
    def is_suspended(self) -> bool:
        """Whether no active user is responsible for the robot; its tokens are refused."""
        return self.responsible is None or not self.responsible.is_active


class ApiToken(models.Model):
    """A bearer token of one user, for the API and as the password of registry clients.

    The text is `gdk_<kind>_<random><crc>`; only its SHA-256 is stored.
    """

    class Kind(models.TextChoices):
        PERSONAL = "pat"
        ROBOT = "rob"
        REFRESH = "ref"  # the OAuth2 refresh token of a registry client

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    kind = models.CharField(max_length=4, choices=Kind)
    name = models.CharField(max_length=120)
    lookup = models.CharField(max_length=16, unique=True)  # first characters of the random part, to find the row
    secret_sha256 = models.BinaryField(max_length=32)
    # REFRESH: the registry service that it is valid for. ROBOT: `tokens.KEYLESS`, or "" for one that a person made.
    service = models.CharField(max_length=200, blank=True)
    # The user who created the token. That user has seen its text, and can act as the robot with it.
    # Null when only `user` has seen the text, or for tokens older than this field.
    made_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    # The token that was used to create this one. This token works only while the parent works, and is revoked with it.
    parent = models.ForeignKey("self", on_delete=models.CASCADE, related_name="children", null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_ip = models.GenericIPAddressField(null=True, blank=True)

    class Meta:
        indexes = (
            models.Index(fields=("user", "-created_at"), condition=Q(revoked_at=None), name="apitoken_live_by_user"),
        )

    def __str__(self) -> str:
        return f"gdk_{self.kind}_{self.lookup}…"
