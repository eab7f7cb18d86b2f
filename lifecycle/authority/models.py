"""Grants: who can do what, on which repositories of a team, in which environment.

`RoleGrant` rows are authoritative. The guardian rows below are a projection of them (docs/adr/0003). They are written
in the same transaction and can be rebuilt. Django's `has_perm` and other packages read the grants from them.
"""

from __future__ import annotations

import uuid
from typing import Final

from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.validators import RegexValidator
from django.db import models
from guardian.models import UserObjectPermissionBase

from accounts.models import Group, Role, Team, User
from lifecycle.core import sealing
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Repository

# `shop/*`, `shop/api`, `*`: a star matches any characters, including slashes.
REPOSITORY_PATTERN = RegexValidator(
    r"^[a-z0-9*]([a-z0-9._/*-]*)\Z", "Lower-case letters, digits, . _ - / and * for any run of characters."
)


class RoleGrant(models.Model):
    """A grant of one role to one user or group, on repositories of a team, optionally in one environment.

    The rows as they were written. Who has which role is in `HeldGrant`.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="role_grants", null=True)
    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="role_grants", null=True)
    role = models.ForeignKey(Role, on_delete=models.PROTECT, related_name="grants")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="role_grants")
    repository_pattern = models.CharField(max_length=255, default="*", validators=[REPOSITORY_PATTERN])
    # The pattern in LIKE syntax, written by `save`. List queries use it in their conditions.
    repository_like = models.CharField(max_length=520, default="%", editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.CASCADE, related_name="role_grants", null=True, blank=True
    )  # null: all environments of the team, and repositories without an environment
    expires_at = models.DateTimeField(null=True, blank=True)
    granted_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    # Slug of the provider whose claims gave the role at sign-in; "": a person granted it.
    provider = models.CharField(max_length=60, blank=True, db_default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("user", "group", "role", "team", "repository_pattern", "environment"),
                nulls_distinct=False,
                name="rolegrant_once_per_holder_role_and_scope",
            ),
            models.CheckConstraint(
                condition=models.Q(user__isnull=False, group=None) | models.Q(user=None, group__isnull=False),
                name="rolegrant_has_a_user_or_a_group",
            ),
        )
        indexes = (models.Index(fields=("user", "team"), name="rolegrant_by_user_and_team"),)

    @property
    def holder(self) -> str:
        """The user name, or `group:` and the name of the group."""
        return f"group:{self.group}" if self.group is not None else str(self.user)

    def __str__(self) -> str:
        where = f" in {self.environment}" if self.environment_id else ""
        return f"{self.holder} is {self.role} of {self.team}:{self.repository_pattern}{where}"

    def save(self, *args: object, **kwargs: object) -> None:
        escaped = self.repository_pattern.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        self.repository_like = escaped.replace("*", "%")
        super().save(*args, **kwargs)  # type: ignore[arg-type]  # passes on whatever Django passes


class PermissionChange(models.Model):
    """One change of what decides rights: a trigger writes it in the transaction of the change (docs/adr/0018).

    Readers that keep rights in memory read what was committed since they last looked (`changes.py`).
    """

    transaction = models.BigIntegerField(db_index=True)  # its id, which says what another transaction could see
    kind = models.CharField(max_length=1)  # see `changes.Kind`
    key = models.CharField(max_length=255, blank=True)
    at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind}{self.key}"


class HeldGrant(models.Model):
    """A grant as one user has it, directly or through a group: a database view, one row for each way.

    Every reader of rights uses it, so that groups count everywhere alike. A group in a group is followed once. The
    columns are those of `RoleGrant`; `id` is the grant's, and comes once for each user who has it.
    """

    user = models.ForeignKey(User, on_delete=models.DO_NOTHING, related_name="+")
    # The group that holds the grant; null: the user does. `through` is the group within it that the user is in.
    group = models.ForeignKey(Group, on_delete=models.DO_NOTHING, related_name="+", null=True)
    through = models.ForeignKey(Group, on_delete=models.DO_NOTHING, related_name="+", null=True)
    role = models.ForeignKey(Role, on_delete=models.DO_NOTHING, related_name="+")
    team = models.ForeignKey(Team, on_delete=models.DO_NOTHING, related_name="+")
    repository_pattern = models.CharField(max_length=255)
    repository_like = models.CharField(max_length=520)
    environment = models.ForeignKey(Environment, on_delete=models.DO_NOTHING, related_name="+", null=True)
    expires_at = models.DateTimeField(null=True)
    granted_by = models.ForeignKey(User, on_delete=models.DO_NOTHING, related_name="+", null=True)
    created_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "lifecycle_heldgrant"

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.team}:{self.repository_pattern}{self.origin and ' '}{self.origin}"

    @property
    def origin(self) -> str:
        """Where the grant comes from: "" for one's own, else "through group devs"."""
        if self.group is None:
            return ""
        inner = f", in group {self.through}" if self.through is not None else ""
        return f"through group {self.group}{inner}"


class AccessRequest(models.Model):
    """A person asks for a role in a team; an owner grants it for some days, or declines."""

    class State(models.TextChoices):
        OPEN = "open"
        GRANTED = "granted"
        DECLINED = "declined"
        WITHDRAWN = "withdrawn"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="access_requests")
    requester = models.ForeignKey(User, on_delete=models.CASCADE, related_name="access_requests")
    role = models.ForeignKey(Role, on_delete=models.CASCADE, related_name="access_requests")
    repository_pattern = models.CharField(max_length=255, default="*", validators=[REPOSITORY_PATTERN])
    environment = models.ForeignKey(
        Environment, on_delete=models.CASCADE, related_name="access_requests", null=True, blank=True
    )
    verb = models.CharField(max_length=40, blank=True)  # what was refused; "" when the person asked without a refusal
    days = models.PositiveSmallIntegerField()  # how long it is wanted for, and then how long it was granted
    reason = models.TextField()
    state = models.CharField(max_length=9, choices=State, default=State.OPEN)
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    decision = models.TextField(blank=True)  # what the owner wrote
    expires_at = models.DateTimeField(null=True, blank=True)  # of the grant that was made

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("requester", "team", "role", "repository_pattern", "environment"),
                condition=models.Q(state="open"),
                nulls_distinct=False,
                name="accessrequest_one_open_per_person_role_and_scope",
            ),
            models.CheckConstraint(
                condition=models.Q(state="open", decided_at=None)
                | (~models.Q(state="open") & ~models.Q(decided_at=None)),
                name="accessrequest_decided_exactly_when_not_open",
            ),
        )
        indexes = (
            models.Index(fields=("team", "-id"), condition=models.Q(state="open"), name="accessrequest_open_by_team"),
            models.Index(fields=("requester", "-id"), name="accessrequest_by_requester"),
        )

    def __str__(self) -> str:
        return f"AR-{self.pk}"

    @property
    def scope_words(self) -> str:
        """Where the role would apply: `shop: shop/* in production`."""
        where = f" in {self.environment.slug}" if self.environment is not None else ""
        what = "all repositories" if self.repository_pattern == "*" else self.repository_pattern
        return f"team {self.team.slug}, {what}{where}"


class TeamUserPermission(UserObjectPermissionBase):
    """Guardian's rows for teams. The foreign key deletes the rows with their team."""

    content_object = models.ForeignKey(Team, on_delete=models.CASCADE)

    class Meta(UserObjectPermissionBase.Meta):
        pass


class RepositoryUserPermission(UserObjectPermissionBase):
    """Guardian's rows for repositories."""

    content_object = models.ForeignKey(Repository, on_delete=models.CASCADE)

    class Meta(UserObjectPermissionBase.Meta):
        pass


class EnvironmentUserPermission(UserObjectPermissionBase):
    """Guardian's rows for environments."""

    content_object = models.ForeignKey(Environment, on_delete=models.CASCADE)

    class Meta(UserObjectPermissionBase.Meta):
        pass


class CredentialFailure(models.Model):
    """One rejected credential at any endpoint that takes credentials. The limiter counts these rows."""

    account = models.CharField(max_length=150)
    address = models.GenericIPAddressField(null=True)
    is_code = models.BooleanField(default=False, db_default=False)  # six digits of an app: a million possibilities
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (
            models.Index(fields=("account", "-at"), name="credentialfailure_by_account"),
            models.Index(fields=("address", "-at"), name="credentialfailure_by_address"),
        )

    def __str__(self) -> str:
        return f"{self.account} at {self.at:%Y-%m-%d %H:%M}"


class BrowserSession(AbstractBaseSession):
    """A session of a browser: whose, since when, and from where. `lifecycle.authority.sessions` keeps it."""

    # In addresses of pages. The key itself is the credential, so it is never shown.
    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="browser_sessions", null=True)
    address = models.GenericIPAddressField(null=True)
    client = models.CharField(max_length=200, blank=True)  # the User-Agent
    created_at = models.DateTimeField()  # the sign-in: Django makes a new session for it
    last_seen_at = models.DateTimeField()  # at most a minute old while the session is used
    # When a provider last confirmed the person; null for a session that a password began.
    provider_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = (models.Index(fields=("user", "-last_seen_at"), name="browsersession_by_user"),)

    @classmethod
    def get_session_store_class(cls) -> type[SessionBase]:
        from lifecycle.authority.sessions import SessionStore  # noqa: PLC0415 -- it imports this model

        return SessionStore


class TotpSecret(models.Model):
    """The secret that a person shares with an authenticator app (TOTP, RFC 6238). One for each person."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="totp")
    secret_sealed = models.BinaryField(default=bytes)
    # The time step of the last accepted code. A code counts only if its step is later, so that each works once.
    last_step = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"authenticator app of {self.user}"


class Passkey(models.Model):
    """A public key whose private half is in an authenticator of a person (WebAuthn)."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="passkeys")
    name = models.CharField(max_length=60)
    credential_id = models.BinaryField(max_length=1023, unique=True)
    public_key = models.BinaryField()  # SubjectPublicKeyInfo in DER
    sign_count = models.BigIntegerField(default=0)  # of the last assertion; 0: the authenticator does not count
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"passkey {self.name} of {self.user}"


class RecoveryCode(models.Model):
    """A code that stands for a lost second factor, once. Only the SHA-256 of its 80 random bits is stored."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    secret_sha256 = models.BinaryField(max_length=32)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("user", "secret_sha256"), name="recoverycode_once_per_user"),)

    def __str__(self) -> str:
        return f"recovery code of {self.user}"


class SecuritySettings(models.Model):
    """What an admin decided about sign-ins for the whole site. There is one row, or none: everything is off."""

    ONLY: Final = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY)
    second_factor_for_admins = models.BooleanField(default=False)
    second_factor_for_roles = models.ManyToManyField(Role, related_name="security_settings")
    # Approving into a production environment needs a second factor within the last 15 minutes.
    step_up_is_on = models.BooleanField(default=False)
    revision = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = (models.CheckConstraint(condition=models.Q(id=1), name="securitysettings_only_one"),)

    def __str__(self) -> str:
        return "security settings"


sealing.register_field(TotpSecret, "secret_sealed")
