"""Alerts keep the environment in which something runs: its team sees the place."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0105_images_of_decisions"),
    ]

    operations = [
        migrations.AddField(
            model_name="alert",
            name="environment",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="lifecycle.environment",
            ),
        ),
    ]
