"""Grants: who may do what, on which repositories of a team, in which environment.

`RoleGrant` rows are the truth. The guardian rows below are their projection (docs/adr/0003), written in the same
transaction and rebuildable; they let Django's own `has_perm` and other packages see the grants.
"""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from guardian.models import UserObjectPermissionBase

from accounts.models import Role, Team, User
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Repository

# `shop/*`, `shop/api`, `*`: a star stands for any run of characters, slashes too.
REPOSITORY_PATTERN = RegexValidator(
    r"^[a-z0-9*]([a-z0-9._/*-]*)\Z", "Lower-case letters, digits, . _ - / and * for any run of characters."
)


class RoleGrant(models.Model):
    """One principal holds one role over the repositories of a team that match a pattern, maybe in one environment."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="role_grants")
    role = models.ForeignKey(Role, on_delete=models.PROTECT, related_name="grants")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="role_grants")
    repository_pattern = models.CharField(max_length=255, default="*", validators=[REPOSITORY_PATTERN])
    # The pattern as a LIKE pattern, written by `save`: what lists put into their condition.
    repository_like = models.CharField(max_length=520, default="%", editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.CASCADE, related_name="role_grants", null=True, blank=True
    )  # null: every environment of the team, and everything that has none
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


class TeamUserPermission(UserObjectPermissionBase):
    """Guardian's rows for teams: a foreign key, so that no grant outlives its team."""

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
    """One refused credential at any login-like door; the limiter counts these rows."""

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
