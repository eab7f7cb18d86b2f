"""Break-glass entries open the images of their debt only, and since when each binding is enforced."""

import django.db.models.deletion
from django.db import migrations, models

# Entries so far bind no image: who broke the glass brings it in again.
BEGINS = """
UPDATE lifecycle_namespacebinding AS binding
SET enforced_at = CASE WHEN binding.mode = '' THEN cluster.enforced_at ELSE now() END
FROM lifecycle_cluster AS cluster
WHERE cluster.id = binding.cluster_id AND cluster.mode <> 'off'
  AND (binding.mode = 'enforce' OR (binding.mode = '' AND cluster.mode = 'enforce'));
UPDATE lifecycle_cluster SET unbound_enforced_at = enforced_at WHERE mode = 'enforce' AND unbound = 'deny';
"""


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0109_providers_create_no_accounts")]

    operations = [
        migrations.AddField("cluster", "unbound_enforced_at", models.DateTimeField(null=True)),
        migrations.AddField("namespacebinding", "enforced_at", models.DateTimeField(null=True)),
        migrations.RunSQL(BEGINS, migrations.RunSQL.noop),
        migrations.RunSQL("DELETE FROM lifecycle_admissionentry", migrations.RunSQL.noop),
        migrations.RemoveConstraint("admissionentry", "admissionentry_once_per_workload_and_text"),
        migrations.AddField("admissionentry", "fingerprint", models.CharField(max_length=64)),
        migrations.AddField(
            "admissionentry",
            "debt",
            models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="+", to="lifecycle.admissiondebt"
            ),
        ),
        migrations.AddConstraint(
            "admissionentry",
            models.UniqueConstraint(
                fields=("cluster", "text_sha256", "fingerprint"), name="admissionentry_once_per_debt_and_text"
            ),
        ),
    ]
