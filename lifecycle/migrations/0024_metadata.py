"""Metadata of repositories and images, as users give it."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0023_owned_packages"), migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations = [
        migrations.CreateModel(
            name="Metadata",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=100)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("text", "Text"),
                            ("number", "Number"),
                            ("boolean", "Boolean"),
                            ("date", "Date"),
                            ("link", "Link"),
                        ],
                        default="text",
                        max_length=7,
                    ),
                ),
                ("value", models.CharField(max_length=1000)),
                ("changed_at", models.DateTimeField(auto_now=True)),
                (
                    "changed_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "image",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="metadata",
                        to="lifecycle.image",
                    ),
                ),
                (
                    "repository",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="metadata",
                        to="lifecycle.repository",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "metadata",
                "indexes": [models.Index(fields=["key"], name="metadata_by_key")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("repository", "image", "key"),
                        name="metadata_once_per_subject_and_key",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
    ]
