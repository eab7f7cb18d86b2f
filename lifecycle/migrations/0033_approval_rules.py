"""Who must approve promotions to an environment, and since when too few people are left for it."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_profiles_and_links"),
        ("lifecycle", "0032_trust"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="environment",
            name="unsatisfiable_since",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.CreateModel(
            name="ApprovalRule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=80)),
                ("required", models.PositiveSmallIntegerField()),
                (
                    "environment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="approval_rules",
                        to="lifecycle.environment",
                    ),
                ),
                ("people", models.ManyToManyField(related_name="approval_rules", to=settings.AUTH_USER_MODEL)),
                (
                    "role",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="approval_rules",
                        to="accounts.role",
                    ),
                ),
                (
                    "team",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="approval_rules",
                        to="accounts.team",
                    ),
                ),
            ],
            options={
                "ordering": ("environment", "id"),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("environment", "name"), name="approvalrule_once_per_environment_and_name"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("required__gte", 1)), name="approvalrule_requires_somebody"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("role", None), ("team", None), _connector="OR"),
                        name="approvalrule_has_one_group",
                    ),
                ],
            },
        ),
    ]
