"""Reminders of deadlines, and requests that a newer one replaces."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0036_votes"),
    ]

    operations = [
        migrations.AddField(
            model_name="promotionrequest",
            name="reminded_of",
            field=models.CharField(blank=True, max_length=8),
        ),
        migrations.AddField(
            model_name="promotionrequest",
            name="supersede_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="promotionrequest",
            name="superseded_by",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="lifecycle.promotionrequest",
            ),
        ),
    ]
