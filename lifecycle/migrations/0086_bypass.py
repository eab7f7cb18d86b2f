"""Since when bindings are as they are, how far decisions are loaded, and indexes to find what nobody decided."""

import django.db.models.functions.datetime
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # indexes of big tables are made while others write

    dependencies = [
        ("lifecycle", "0085_waiting_events"),
    ]

    operations = [
        migrations.CreateModel(
            name="AdmissionLoad",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=64, unique=True)),
                ("loaded_until", models.DateTimeField()),
                ("lost_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.AddField(
            model_name="cluster",
            name="bound_at",
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
        ),
        AddIndexConcurrently(
            model_name="admissioncount",
            index=models.Index(
                fields=["cluster", "namespace", "workload_name", "minute"], name="admissioncount_by_workload"
            ),
        ),
        AddIndexConcurrently(
            model_name="admissiondecision",
            index=models.Index(
                fields=["cluster", "namespace", "workload_name", "at"], name="admissiondecision_by_workload"
            ),
        ),
        AddIndexConcurrently(
            model_name="runningcontainer",
            index=models.Index(
                condition=models.Q(("until__isnull", False)), fields=["reporter", "key"], name="container_ended_by_key"
            ),
        ),
    ]
