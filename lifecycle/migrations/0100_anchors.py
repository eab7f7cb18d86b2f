"""Places outside of the database that get checkpoints of the sealed audit log, and checks of the whole log."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0099_waived_findings"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Anchor",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=60, unique=True)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("oci", "Managed registry"),
                            ("folder", "Folder"),
                            ("syslog", "Syslog"),
                            ("mail", "Mail"),
                        ],
                        max_length=6,
                    ),
                ),
                ("target", models.CharField(max_length=300)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("origin", models.CharField(blank=True, max_length=255)),
                ("size", models.BigIntegerField(default=0)),
                ("anchored_at", models.DateTimeField(null=True)),
                ("problem", models.CharField(blank=True, max_length=300)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="LogCheck",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(auto_now_add=True)),
                ("entries", models.BigIntegerField()),
                ("seconds", models.FloatField()),
                ("problem", models.CharField(blank=True, max_length=400)),
            ],
            options={
                "indexes": [models.Index(fields=["-at"], name="logcheck_by_time")],
            },
        ),
    ]
