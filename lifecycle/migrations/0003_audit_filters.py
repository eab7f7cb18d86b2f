"""Indexes for the filters of the audit page: who, which repository, when."""

import django.contrib.postgres.indexes
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0002_audit_append_only")]
    operations = [
        migrations.AddIndex("auditevent", models.Index(fields=["actor_name", "-id"], name="auditevent_by_actor")),
        migrations.AddIndex("auditevent", models.Index(fields=["repository", "-id"], name="auditevent_by_repository")),
        migrations.AddIndex(
            "auditevent", django.contrib.postgres.indexes.BrinIndex(fields=["at"], name="auditevent_by_time")
        ),
    ]
