"""Quarantined digests, and the images that are exempt."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_profiles_and_links"),
        ("lifecycle", "0043_verification"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Quarantine",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("reason", models.TextField()),
                ("incident", models.CharField(blank=True, max_length=300)),
                ("descendants", models.BooleanField(default=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("active", "Active"),
                            ("release_requested", "Release Requested"),
                            ("released", "Released"),
                        ],
                        default="active",
                        max_length=17,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("release_requested_at", models.DateTimeField(null=True)),
                ("release_reason", models.TextField(blank=True)),
                ("released_at", models.DateTimeField(null=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "image",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="quarantines", to="lifecycle.image"
                    ),
                ),
                (
                    "release_requested_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "released_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to="accounts.team"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="QuarantineExemption",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("reason", models.TextField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "image",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="lifecycle.image"
                    ),
                ),
                (
                    "quarantine",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="exemptions",
                        to="lifecycle.quarantine",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="quarantine",
            constraint=models.UniqueConstraint(
                condition=models.Q(("released_at", None)), fields=("image",), name="quarantine_one_live_per_image"
            ),
        ),
        migrations.AddConstraint(
            model_name="quarantine",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("released_by", None),
                    models.Q(("released_by", models.F("release_requested_by")), _negated=True),
                    _connector="OR",
                ),
                name="quarantine_released_by_a_second_person",
            ),
        ),
        migrations.AddConstraint(
            model_name="quarantine",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("released_at__isnull", False), ("released_by__isnull", False), ("state", "released")),
                    models.Q(
                        models.Q(("state", "released"), _negated=True), ("released_at", None), ("released_by", None)
                    ),
                    _connector="OR",
                ),
                name="quarantine_has_end_exactly_when_released",
            ),
        ),
        migrations.AddConstraint(
            model_name="quarantine",
            constraint=models.CheckConstraint(
                condition=models.Q(("state", "active"), ("release_requested_by__isnull", False), _connector="OR"),
                name="quarantine_release_has_requester",
            ),
        ),
        migrations.AddConstraint(
            model_name="quarantineexemption",
            constraint=models.UniqueConstraint(
                fields=("quarantine", "image"), name="quarantineexemption_once_per_quarantine_and_image"
            ),
        ),
    ]
