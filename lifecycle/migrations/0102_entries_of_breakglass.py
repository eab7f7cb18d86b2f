"""Who brought a break-glass annotation in while admission refused, so that controllers may carry it on."""

import django.db.models.deletion
from django.db import migrations, models

# Debts so far do not say the mode: who broke the glass before keeps it, until enforcement begins anew.
FILL = """
INSERT INTO lifecycle_admissionentry
    (cluster_id, namespace, workload_kind, workload_name, text_sha256, user_name, entered_at)
SELECT cluster_id, namespace, workload_kind, workload_name, encode(sha256(convert_to(reason, 'UTF8')), 'hex'),
       max(user_names[1]), max(last_at)
FROM lifecycle_admissiondebt WHERE cardinality(user_names) > 0
GROUP BY 1, 2, 3, 4, 5
"""


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0101_bundle_confirmed_since"),
    ]

    operations = [
        migrations.CreateModel(
            name="AdmissionEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("namespace", models.CharField(blank=True, max_length=253)),
                ("workload_kind", models.CharField(blank=True, max_length=253)),
                ("workload_name", models.CharField(blank=True, max_length=253)),
                ("text_sha256", models.CharField(max_length=64)),
                ("user_name", models.CharField(max_length=253)),
                ("entered_at", models.DateTimeField()),
                (
                    "cluster",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="lifecycle.cluster",
                    ),
                ),
            ],
            options={"verbose_name_plural": "admission entries"},
        ),
        migrations.AddConstraint(
            model_name="admissionentry",
            constraint=models.UniqueConstraint(
                fields=("cluster", "namespace", "workload_kind", "workload_name", "text_sha256"),
                name="admissionentry_once_per_workload_and_text",
            ),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
