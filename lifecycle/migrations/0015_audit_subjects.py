"""Indexes to find audit events by environment, user and role. Built without a lock: the audit log is a big table."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models.fields.json import KeyTextTransform


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0014_validate_states")]
    operations = [
        AddIndexConcurrently(
            "auditevent",
            models.Index(
                fields=["environment", "-id"],
                condition=models.Q(("environment", ""), _negated=True),
                name="auditevent_by_environment",
            ),
        ),
        AddIndexConcurrently(
            "auditevent",
            models.Index(KeyTextTransform("user", "details"), models.F("id").desc(), name="auditevent_by_user"),
        ),
        AddIndexConcurrently(
            "auditevent",
            models.Index(KeyTextTransform("role", "details"), models.F("id").desc(), name="auditevent_by_role"),
        ),
    ]
