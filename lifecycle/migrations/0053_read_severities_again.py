"""Let the next synchronisation group all advisories again, and read those without a severity again.

Groups now store their CVE ids, and more ways to state a severity are known.
"""

from django.db import migrations

_BATCH = 20_000


def mark(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(id), 0) FROM lifecycle_advisory")
        last = cursor.fetchone()[0]
        for start in range(0, last, _BATCH):
            cursor.execute(
                "UPDATE lifecycle_advisory SET is_grouped = withdrawn_at IS NOT NULL,"
                " key_version = CASE WHEN own_severity = 'unknown' THEN 0 ELSE key_version END"
                " WHERE id > %s AND id <= %s",
                [start, start + _BATCH],
            )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0052_exploits")]
    operations = [migrations.RunPython(mark, migrations.RunPython.noop)]
