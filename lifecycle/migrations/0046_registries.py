"""Registries that an admin added: their certificate authority and the count of their changes."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0045_content_checks"),
    ]

    operations = [
        migrations.AddField("registry", "is_added", models.BooleanField(default=False)),
        migrations.AddField(
            "registry", "ca_certificate", models.TextField(blank=True, default=""), preserve_default=False
        ),
        migrations.AddField("registry", "revision", models.PositiveIntegerField(default=1)),
    ]
