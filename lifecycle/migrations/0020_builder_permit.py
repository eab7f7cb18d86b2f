"""The switch of the embedded builder. It is off for every existing team and repository."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_recipe_manage"),
        ("lifecycle", "0019_search"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="BuilderPermit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("turned_on_at", models.DateTimeField(auto_now_add=True)),
                (
                    "repository",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="builder_permit",
                        to="lifecycle.repository",
                    ),
                ),
                (
                    "team",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="builder_permit",
                        to="accounts.team",
                    ),
                ),
                (
                    "turned_on_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("repository__isnull", False), ("team", None)),
                            models.Q(("repository", None), ("team__isnull", False)),
                            _connector="OR",
                        ),
                        name="builderpermit_for_a_team_or_a_repository",
                    )
                ],
            },
        ),
    ]
