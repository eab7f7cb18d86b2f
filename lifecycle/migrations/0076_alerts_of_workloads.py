"""Where alerts are about something that runs, and the events that wait to become alerts."""

import django.db.models.deletion
from django.conf import settings
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # the index on alerts is built concurrently

    dependencies = [
        ("accounts", "0007_runtime_manage"),
        ("lifecycle", "0075_running"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="RuntimeEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=6)),
                ("event_id", models.CharField(blank=True, max_length=64)),
                ("event", models.JSONField(null=True)),
                ("received_at", models.DateTimeField()),
            ],
        ),
        migrations.AddField(
            model_name="alert",
            name="cluster",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="alerts",
                to="lifecycle.cluster",
            ),
        ),
        migrations.AddField(
            model_name="alert",
            name="namespace",
            field=models.CharField(blank=True, db_default="", max_length=253),
        ),
        migrations.AddField(
            model_name="alert",
            name="rule",
            field=models.CharField(blank=True, db_default="", max_length=200),
        ),
        migrations.AddField(
            model_name="alert",
            name="workload",
            field=models.CharField(blank=True, db_default="", max_length=320),
        ),
        AddIndexConcurrently(
            model_name="alert",
            index=models.Index(
                condition=models.Q(("cluster__isnull", False)), fields=["cluster", "-id"], name="alert_by_cluster"
            ),
        ),
        migrations.AddField(
            model_name="runtimeevent",
            name="cluster",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="lifecycle.cluster"
            ),
        ),
        migrations.AddIndex(
            model_name="runtimeevent",
            index=models.Index(
                condition=models.Q(("event__isnull", False)), fields=["id"], name="runtimeevent_to_fold"
            ),
        ),
        migrations.AddIndex(
            model_name="runtimeevent",
            index=models.Index(fields=["received_at"], name="runtimeevent_by_arrival"),
        ),
        migrations.AddConstraint(
            model_name="runtimeevent",
            constraint=models.UniqueConstraint(
                condition=models.Q(("event_id", ""), _negated=True),
                fields=("cluster", "kind", "event_id"),
                name="runtimeevent_once_per_id",
            ),
        ),
    ]
