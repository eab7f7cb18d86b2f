"""Release sets: requests that are decided and run as one."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0047_signing_key_uri"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ReleaseSet",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("size", models.PositiveSmallIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "Open"),
                            ("ready", "Ready"),
                            ("executing", "Executing"),
                            ("reverting", "Reverting"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("rejected", "Rejected"),
                            ("withdrawn", "Withdrawn"),
                            ("expired", "Expired"),
                            ("superseded", "Superseded"),
                        ],
                        default="open",
                        max_length=12,
                    ),
                ),
                ("reason", models.TextField()),
                ("approve_by", models.DateTimeField()),
                ("execute_by", models.DateTimeField(blank=True, null=True)),
                ("window_paused_at", models.DateTimeField(blank=True, null=True)),
                ("failure", models.TextField(blank=True)),
                ("can_retry", models.BooleanField(default=False)),
                ("former", models.JSONField(default=dict)),
                ("attempts", models.IntegerField(default=0)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("decided_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("seen_at", models.DateTimeField(blank=True, null=True)),
                ("reminded_of", models.CharField(blank=True, max_length=8)),
                (
                    "environment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="release_sets",
                        to="lifecycle.environment",
                    ),
                ),
                (
                    "executed_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "requested_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="release_sets",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="promotionrequest",
            name="release_set",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="members",
                to="lifecycle.releaseset",
            ),
        ),
        migrations.AddIndex(
            model_name="releaseset",
            index=models.Index(fields=["state", "-id"], name="releaseset_by_state"),
        ),
        migrations.AddIndex(
            model_name="releaseset",
            index=models.Index(fields=["requested_by", "-id"], name="releaseset_by_requester"),
        ),
        migrations.AddConstraint(
            model_name="releaseset",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at", None), ("state__in", ("open", "ready", "executing", "reverting"))),
                    models.Q(
                        ("finished_at__isnull", False),
                        ("state__in", ("succeeded", "failed", "rejected", "withdrawn", "expired", "superseded")),
                    ),
                    _connector="OR",
                ),
                name="releaseset_finished_exactly_when_final",
            ),
        ),
        migrations.AddConstraint(
            model_name="releaseset",
            constraint=models.CheckConstraint(condition=models.Q(("size__gte", 2)), name="releaseset_has_members"),
        ),
    ]
