"""Providers of sign-in with their rules, who can use passwords, and which roles came from a provider."""

import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0009_identities"),
        ("lifecycle", "0095_groups_hold_roles"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="SignInPolicy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("passwords_only_for_admins", models.BooleanField(default=False)),
            ],
        ),
        migrations.AddField(
            model_name="rolegrant",
            name="provider",
            field=models.CharField(blank=True, db_default="", max_length=60),
        ),
        migrations.CreateModel(
            name="IdentityProvider",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "slug",
                    models.CharField(
                        max_length=60,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[a-z0-9]+(-[a-z0-9]+)*\\Z",
                                "Lower-case letters and digits, single hyphens between them.",
                            )
                        ],
                    ),
                ),
                ("name", models.CharField(max_length=120)),
                ("issuer", models.CharField(max_length=300, unique=True)),
                ("client_id", models.CharField(max_length=300)),
                ("client_secret_encrypted", models.BinaryField(max_length=2000)),
                ("scopes", models.CharField(default="openid profile email", max_length=300)),
                ("username_claim", models.CharField(default="preferred_username", max_length=60)),
                ("is_enabled", models.BooleanField(default=True)),
                ("creates_accounts", models.BooleanField(default=True)),
                ("links_by_mail", models.BooleanField(default=False)),
                ("revision", models.PositiveIntegerField(default=1)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("slug",),
            },
        ),
        migrations.CreateModel(
            name="ClaimRule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("claim", models.CharField(max_length=200)),
                (
                    "match",
                    models.CharField(choices=[("exact", "Exact"), ("glob", "Glob")], default="exact", max_length=5),
                ),
                ("value", models.CharField(max_length=255)),
                (
                    "repository_pattern",
                    models.CharField(
                        default="*",
                        max_length=255,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[a-z0-9*]([a-z0-9._/*-]*)\\Z",
                                "Lower-case letters, digits, . _ - / and * for any run of characters.",
                            )
                        ],
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="claim_rules",
                        to="lifecycle.environment",
                    ),
                ),
                (
                    "group",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="claim_rules",
                        to="accounts.group",
                    ),
                ),
                (
                    "role",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="claim_rules",
                        to="accounts.role",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="claim_rules",
                        to="accounts.team",
                    ),
                ),
                (
                    "provider",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="rules",
                        to="lifecycle.identityprovider",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("environment", None), ("group__isnull", False), ("role", None), ("team", None)),
                            models.Q(("group", None), ("role__isnull", False), ("team__isnull", False)),
                            _connector="OR",
                        ),
                        name="claimrule_gives_a_group_or_a_role",
                    ),
                    models.UniqueConstraint(
                        fields=(
                            "provider",
                            "claim",
                            "match",
                            "value",
                            "group",
                            "role",
                            "team",
                            "repository_pattern",
                            "environment",
                        ),
                        name="claimrule_once",
                        nulls_distinct=False,
                    ),
                ],
            },
        ),
    ]
