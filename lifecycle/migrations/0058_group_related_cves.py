"""Let the next synchronisation group again the advisories without CVE ids that name some in aliases or related.

Groups now store those too.
"""

from django.db import migrations

_BATCH = 20_000


def mark(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(id), 0) FROM lifecycle_advisory")
        last = cursor.fetchone()[0]
        for start in range(0, last, _BATCH):
            cursor.execute(
                "UPDATE lifecycle_advisory SET is_grouped = false"
                " WHERE id > %s AND id <= %s AND withdrawn_at IS NULL AND cardinality(cves) = 0"
                " AND (cardinality(aliases) > 0 OR cardinality(related) > 0)",
                [start, start + _BATCH],
            )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0057_remedies")]
    operations = [migrations.RunPython(mark, migrations.RunPython.noop)]
