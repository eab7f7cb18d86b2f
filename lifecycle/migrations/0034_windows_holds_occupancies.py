"""When promotions may run: windows, holds and stops, and how long each image stayed in each slot."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# Until now the history of a slot was only in its succeeded promotions.
_STAYS = """
INSERT INTO lifecycle_occupancy (slot_id, image_id, started_at, ended_at)
SELECT s.id, p.image_id, p.finished_at,
       lead(p.finished_at) OVER (PARTITION BY s.id ORDER BY p.finished_at, p.id)
FROM lifecycle_promotionrequest p
JOIN lifecycle_slot s ON s.repository_id = p.repository_id AND s.environment_id = p.environment_id
WHERE p.state = 'succeeded'
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_profiles_and_links"),
        ("lifecycle", "0033_approval_rules"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="promotionrequest",
            name="window_paused_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.CreateModel(
            name="Hold",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("scope", models.CharField(choices=[("auto", "Auto"), ("all", "All")], default="all", max_length=4)),
                ("is_stop", models.BooleanField(default=False)),
                ("reason", models.TextField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("lifted_at", models.DateTimeField(blank=True, null=True)),
                (
                    "environment",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="lifecycle.environment",
                    ),
                ),
                (
                    "lifted_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "repository",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="holds",
                        to="lifecycle.repository",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="accounts.team"
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("lifted_at", None)), fields=["team", "environment"], name="hold_by_place"
                    )
                ],
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("scope__in", ("auto", "all"))), name="hold_scope_known"),
                    models.CheckConstraint(
                        condition=models.Q(("environment", None), ("team__isnull", False), _connector="OR"),
                        name="hold_environment_has_a_team",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("is_stop", False),
                            models.Q(("expires_at__isnull", False), ("repository", None), ("scope", "all")),
                            _connector="OR",
                        ),
                        name="hold_stop_holds_everything_and_expires",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Occupancy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("started_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "image",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="occupancies", to="lifecycle.image"
                    ),
                ),
                (
                    "slot",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="occupancies", to="lifecycle.slot"
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "occupancies",
                "indexes": [models.Index(fields=["slot", "image"], name="occupancy_by_slot_and_image")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at", None)), fields=("slot",), name="occupancy_one_image_at_a_time"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PromotionWindow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=120)),
                ("kind", models.CharField(choices=[("freeze", "Freeze"), ("allow", "Allow")], max_length=6)),
                ("starts_at", models.CharField(max_length=19)),
                ("duration_s", models.PositiveIntegerField()),
                ("time_zone", models.CharField(max_length=64)),
                ("rule", models.CharField(blank=True, max_length=200)),
                ("allows_rollback", models.BooleanField(default=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="lifecycle.environment",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="accounts.team"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ("freeze", "allow"))), name="promotionwindow_kind_known"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("environment", None), ("team__isnull", False), _connector="OR"),
                        name="promotionwindow_environment_has_a_team",
                    ),
                ],
            },
        ),
        migrations.RunSQL(_STAYS, migrations.RunSQL.noop),
    ]
