"""Objections and withdrawn votes, and who overruled an objection."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0035_signing_keys"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="vote",
            name="overrule_reason",
            field=models.TextField(blank=True),
        ),
        migrations.AddField(
            model_name="vote",
            name="overruled_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="vote",
            name="overruled_by",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AlterField(
            model_name="vote",
            name="value",
            field=models.CharField(
                choices=[("approve", "Approve"), ("object", "Object"), ("reject", "Reject"), ("withdraw", "Withdraw")],
                max_length=8,
            ),
        ),
        migrations.AddConstraint(
            model_name="vote",
            constraint=models.CheckConstraint(
                condition=models.Q(("value__in", ("approve", "object", "reject", "withdraw"))), name="vote_value_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="vote",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("overruled_at", None),
                    models.Q(("overruled_by__isnull", False), ("value", "object")),
                    _connector="OR",
                ),
                name="vote_only_objections_are_overruled",
            ),
        ),
    ]
