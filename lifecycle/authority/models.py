"""Grants: who can do what, on which repositories of a team, in which environment.

`RoleGrant` rows are authoritative. The guardian rows below are a projection of them (docs/adr/0003). They are written
in the same transaction and can be rebuilt. Django's `has_perm` and other packages read the grants from them.
"""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from guardian.models import UserObjectPermissionBase

from accounts.models import Role, Team, User
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Repository

# `shop/*`, `shop/api`, `*`: a star matches any characters, including slashes.
REPOSITORY_PATTERN = RegexValidator(
    r"^[a-z0-9*]([a-z0-9._/*-]*)\Z", "Lower-case letters, digits, . _ - / and * for any run of characters."
)


class RoleGrant(models.Model):
    """A grant of one role to one user, on a team's repositories that match a pattern, optionally in one environment."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="role_grants")
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
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("user", "role", "team", "repository_pattern", "environment"),
                nulls_distinct=False,
                name="rolegrant_once_per_principal_role_and_scope",
            ),
        )
        indexes = (models.Index(fields=("user", "team"), name="rolegrant_by_user_and_team"),)

    def __str__(self) -> str:
        where = f" in {self.environment}" if self.environment_id else ""
        return f"{self.user} is {self.role} of {self.team}:{self.repository_pattern}{where}"

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
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = (
            models.Index(fields=("account", "-at"), name="credentialfailure_by_account"),
            models.Index(fields=("address", "-at"), name="credentialfailure_by_address"),
        )

    def __str__(self) -> str:
        return f"{self.account} at {self.at:%Y-%m-%d %H:%M}"
