"""Pod templates of controllers that have no Pod now."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0112_reporters_confirm_bundles")]

    operations = [
        migrations.AddField("reporter", "templates_at", models.DateTimeField(null=True)),
        migrations.CreateModel(
            name="PodTemplate",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("namespace", models.CharField(blank=True, max_length=253)),
                ("workload_kind", models.CharField(max_length=63)),
                ("workload_name", models.CharField(max_length=253)),
                ("spec", models.CharField(max_length=64)),
                (
                    "cluster",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="lifecycle.cluster"
                    ),
                ),
                (
                    "reporter",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="lifecycle.reporter",
                    ),
                ),
            ],
            options={
                "constraints": (
                    models.UniqueConstraint(
                        fields=("reporter", "namespace", "workload_kind", "workload_name"),
                        name="podtemplate_once_per_reporter_and_workload",
                    ),
                )
            },
        ),
    ]
