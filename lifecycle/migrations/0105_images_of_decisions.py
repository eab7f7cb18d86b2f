"""Decisions of admission name the images that they are about, so that what runs can be compared with them."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0104_access_requests"),
    ]

    operations = [
        migrations.AddField(
            model_name="admissioncount",
            name="judged",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=700), null=True, size=None
            ),
        ),
        migrations.AddField(
            model_name="admissiondecision",
            name="judged",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=700), null=True, size=None
            ),
        ),
    ]
