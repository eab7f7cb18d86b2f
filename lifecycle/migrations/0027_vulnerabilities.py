"""Records of one vulnerability share a name and a severity. The next synchronisation of advisories groups them.

No column is rewritten: all have constant defaults. The rows are filled in batches, each in its own transaction.
"""

from django.db import migrations, models, transaction

_SEVERITIES = [
    ("critical", "Critical"), ("high", "High"), ("medium", "Medium"), ("low", "Low"), ("none", "None"),
    ("unknown", "Unknown"),
]  # fmt: skip
_FILL = """
UPDATE lifecycle_advisory SET vulnerability = osv_id, own_severity = severity
WHERE id > %s AND id <= %s AND vulnerability = ''
"""
_BATCH = 10_000


def fill(apps, schema_editor):
    """Fill the new columns; a second run finds what the first one left."""
    last = apps.get_model("lifecycle", "Advisory").objects.aggregate(last=models.Max("pk"))["last"] or 0
    for start in range(0, last, _BATCH):
        with transaction.atomic(), schema_editor.connection.cursor() as cursor:
            cursor.execute(_FILL, [start, start + _BATCH])


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0026_impossible_dates")]

    operations = [
        migrations.AddField("advisory", "is_grouped", models.BooleanField(db_default=False, default=False)),
        migrations.AddField(
            "advisory",
            "own_severity",
            models.CharField(choices=_SEVERITIES, db_default="unknown", default="unknown", max_length=8),
        ),
        migrations.AddField(
            "advisory", "severity_source", models.CharField(blank=True, db_default="", default="", max_length=200)
        ),
        migrations.AddField(
            "advisory", "vulnerability", models.CharField(blank=True, db_default="", default="", max_length=200)
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
