"""Profiles of people, and links with which they set their own password."""

from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0005_parents_of_tokens_and_robots")]

    operations = [
        migrations.AddField("user", "full_name", models.CharField(blank=True, max_length=120, default=""), False),
        migrations.AddField("user", "email_verified_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("user", "time_zone", models.CharField(default="UTC", max_length=63)),
        migrations.AddField("user", "must_change_password", models.BooleanField(default=False)),
        migrations.AddField(
            "user",
            "secret_seen_by",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.CreateModel(
            name="AccountLink",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(choices=[("invitation", "Invitation"), ("reset", "Reset")], max_length=10),
                ),
                ("secret_sha256", models.BinaryField(max_length=32, unique=True)),
                ("made_from", models.GenericIPAddressField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("expires_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "made_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="links", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
        ),
    ]
