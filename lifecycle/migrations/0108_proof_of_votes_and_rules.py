"""Votes keep whether they were given with a second factor, and trust rules with which token they were made."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0107_large_pentests"),
    ]

    operations = [
        migrations.AddField(
            model_name="vote",
            name="is_strong",
            field=models.BooleanField(null=True),
        ),
        migrations.AddField(
            model_name="trustrule",
            name="made_with",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.RESTRICT,
                related_name="+",
                to="accounts.apitoken",
            ),
        ),
    ]
