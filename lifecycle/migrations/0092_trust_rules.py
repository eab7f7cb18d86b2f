"""Trust rules, and the identity tokens that were exchanged by them."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_runtime_manage"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("lifecycle", "0091_proven_bases"),
    ]

    operations = [
        migrations.CreateModel(
            name="TrustRule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=120)),
                ("issuer", models.CharField(max_length=300)),
                ("audience", models.CharField(max_length=300)),
                ("claims", models.JSONField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("used_at", models.DateTimeField(blank=True, null=True)),
                (
                    "made_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "robot",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="trust_rules", to="accounts.robot"
                    ),
                ),
            ],
            options={
                "default_permissions": (),
                "indexes": [
                    models.Index(
                        condition=models.Q(("ended_at", None)), fields=["issuer"], name="trustrule_live_by_issuer"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Exchange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("identity_sha256", models.BinaryField(max_length=32, unique=True)),
                ("subject", models.CharField(max_length=300)),
                ("at", models.DateTimeField(auto_now_add=True)),
                ("forget_at", models.DateTimeField(db_index=True)),
                (
                    "rule",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="exchanges",
                        to="lifecycle.trustrule",
                    ),
                ),
                (
                    "token",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="accounts.apitoken",
                    ),
                ),
            ],
            options={"default_permissions": ()},
        ),
    ]
