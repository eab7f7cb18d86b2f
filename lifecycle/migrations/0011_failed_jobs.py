"""Index the jobs that failed: they are looked for by the clock and by every gate, among all that ended well."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0010_declared_bases_only"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "failed")), fields=["kind", "subject_id"], name="job_failed"
            ),
        ),
    ]
