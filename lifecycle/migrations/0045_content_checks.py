"""What the checks of files found in the layers of images."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0044_quarantines"),
    ]

    operations = [
        migrations.CreateModel(
            name="ContentCheck",
            fields=[
                (
                    "image",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="content_check",
                        serialize=False,
                        to="lifecycle.image",
                    ),
                ),
                ("checked_at", models.DateTimeField()),
                ("problem", models.TextField(blank=True)),
                (
                    "malware",
                    models.CharField(
                        choices=[("off", "Off"), ("clean", "Clean"), ("found", "Found"), ("unknown", "Unknown")],
                        max_length=7,
                    ),
                ),
                ("malware_problem", models.TextField(blank=True)),
                ("engine", models.CharField(blank=True, max_length=200)),
                ("rules_version", models.IntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="ContentSet",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("digest", models.CharField(max_length=71, unique=True)),
                ("entries", models.JSONField()),
                ("counts", models.JSONField()),
                ("first_seen_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="ImageContentSet",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("layer_position", models.IntegerField()),
                (
                    "content_set",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="image_content_sets",
                        to="lifecycle.contentset",
                    ),
                ),
                (
                    "image",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="content_sets",
                        to="lifecycle.image",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("image", "layer_position"), name="imagecontentset_once")
                ],
            },
        ),
    ]
