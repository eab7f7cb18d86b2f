"""The registry that an environment is in."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0048_release_sets"),
    ]

    operations = [
        migrations.AddField(
            "environment",
            "registry",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="environments",
                to="lifecycle.registry",
            ),
        ),
    ]
