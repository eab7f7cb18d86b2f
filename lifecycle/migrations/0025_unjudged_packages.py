"""Images store how many of their packages could not be judged, and why. No column is rewritten: all have defaults."""

from django.db import migrations, models

_COVERAGE = """
INSERT INTO lifecycle_coverage (ecosystem, release)
SELECT DISTINCT ai.ecosystem, ai.release
FROM lifecycle_affectedinterval ai JOIN lifecycle_advisory a ON a.id = ai.advisory_id
WHERE a.tombstoned_at IS NULL
"""


def queue_recount(apps, schema_editor):
    """Let a worker fill the counts of the images that are already scanned."""
    actor = apps.get_model("accounts", "User").objects.filter(kind="system").first()
    if actor is not None and apps.get_model("lifecycle", "Image").objects.filter(scanned_at__isnull=False).exists():
        jobs = apps.get_model("lifecycle", "Job").objects
        jobs.create(kind="recount", subject_id=0, actor=actor, dedupe_key="coverage", payload={})


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0024_metadata")]

    operations = [
        migrations.CreateModel(
            name="Coverage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("ecosystem", models.CharField(max_length=60)),
                ("release", models.CharField(blank=True, max_length=300)),
            ],
            options={
                "verbose_name_plural": "coverage",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("ecosystem", "release"), name="coverage_once_per_ecosystem_and_release"
                    )
                ],
            },
        ),
        migrations.AddField("image", "dropped_count", models.IntegerField(db_default=0, default=0)),
        migrations.AddField("image", "unjudged_count", models.IntegerField(db_default=0, default=0)),
        migrations.AddField("image", "unjudged_reasons", models.JSONField(null=True)),
        migrations.AddField("packageversion", "is_unmatched", models.BooleanField(db_default=False, default=False)),
        migrations.RunSQL(_COVERAGE, migrations.RunSQL.noop),
        migrations.RunPython(queue_recount, migrations.RunPython.noop),
    ]
