"""Providers of sign-in, the rules from their claims to groups and roles, and whether passwords are taken."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from accounts.models import TEAM_SLUG, Group, Role, Team, User
from lifecycle.authority.models import REPOSITORY_PATTERN
from lifecycle.core.sealing import register_field
from lifecycle.environments.models import Environment


class IdentityProvider(models.Model):
    """An OpenID Connect provider, and our client there. The client secret is sealed and never shown."""

    slug = models.CharField(max_length=60, unique=True, validators=[TEAM_SLUG])  # part of the callback's address
    name = models.CharField(max_length=120)  # on the button
    issuer = models.CharField(max_length=300, unique=True)  # exactly as in its discovery document
    client_id = models.CharField(max_length=300)
    client_secret_encrypted = models.BinaryField(max_length=2000)
    scopes = models.CharField(max_length=300, default="openid profile email")
    username_claim = models.CharField(max_length=60, default="preferred_username")
    is_enabled = models.BooleanField(default=True)
    # At the first sign-in. Off at first: at a public provider everybody would come in, and see what is internal.
    creates_accounts = models.BooleanField(default=False)
    # Links an account by a mail that both the provider and an admin verified, without the person's own act.
    links_by_mail = models.BooleanField(default=False)
    revision = models.PositiveIntegerField(default=1)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.slug


register_field(IdentityProvider, "client_secret_encrypted")


class ClaimRule(models.Model):
    """When a claim has a value, the person is in a group, or has a role in a scope."""

    class Match(models.TextChoices):
        EXACT = "exact"
        GLOB = "glob"  # a star matches any characters

    provider = models.ForeignKey(IdentityProvider, on_delete=models.CASCADE, related_name="rules")
    claim = models.CharField(max_length=200)  # path: groups, or realm_access.roles
    match = models.CharField(max_length=5, choices=Match, default=Match.EXACT)
    value = models.CharField(max_length=255)
    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="claim_rules", null=True)
    role = models.ForeignKey(Role, on_delete=models.PROTECT, related_name="claim_rules", null=True)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="claim_rules", null=True)
    repository_pattern = models.CharField(max_length=255, default="*", validators=[REPOSITORY_PATTERN])
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="claim_rules", null=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(group__isnull=False, role=None, team=None, environment=None)
                | Q(group=None, role__isnull=False, team__isnull=False),
                name="claimrule_gives_a_group_or_a_role",
            ),
            models.UniqueConstraint(
                fields=("provider", "claim", "match", "value", "group", "role", "team", "repository_pattern",
                        "environment"),
                nulls_distinct=False,
                name="claimrule_once",
            ),
        )  # fmt: skip

    def __str__(self) -> str:
        sign = "is" if self.match == self.Match.EXACT else "is like"
        return f"{self.claim} {sign} {self.value}: {self.target}"

    @property
    def target(self) -> str:
        """What the rule gives, in words."""
        if self.group is not None:
            return f"group {self.group}"
        where = f" in {self.environment.slug}" if self.environment is not None else ""
        return f"role {self.role} in team {self.team}, {self.repository_pattern}{where}"


class SignInPolicy(models.Model):
    """One row: who can sign in with a password. Without the row, everybody with a password."""

    passwords_only_for_admins = models.BooleanField(default=False)

    def __str__(self) -> str:
        return "passwords only for admins" if self.passwords_only_for_admins else "passwords for everybody"
