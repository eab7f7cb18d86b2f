"""Which version of the keys and coordinates a row has, so that an upgrade derives them again instead of comparing both.

The default is in the database: no row is written again.
"""

from django.db import migrations, models

import lifecycle.versions


def _key_version() -> models.SmallIntegerField:
    return models.SmallIntegerField(db_default=1, default=lifecycle.versions.current_key_version)


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0020_builder_permit")]

    operations = [
        migrations.AddField("advisory", "key_version", _key_version()),
        migrations.AddField("packageversion", "key_version", _key_version()),
    ]
