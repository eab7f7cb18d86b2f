"""Dates that cannot be are not said: reproducible builds write a constant instead of the time of the build."""

from django.db import migrations

_IMAGES = """
UPDATE lifecycle_image SET created_at = NULL WHERE created_at < '1990-01-01Z' OR created_at > now() + interval '1 day'
"""
_ADVISORIES = """
UPDATE lifecycle_advisory SET published_at = NULL
WHERE published_at < '1990-01-01Z' OR published_at > now() + interval '1 day'
"""


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0025_unjudged_packages")]

    operations = [
        migrations.RunSQL(_IMAGES, migrations.RunSQL.noop),
        migrations.RunSQL(_ADVISORIES, migrations.RunSQL.noop),
    ]
