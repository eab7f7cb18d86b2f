"""The distribution's package that owns a package of a language. It becomes part of what makes a package version unique.

The new unique index is built without a long lock, next to the old constraint, which goes when the new one stands.
"""

from django.db import migrations, models

_NAME = "packageversion_once_by_owner"
_COLUMNS = "(purl, version, source_name, source_version, owner)"


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0022_promotion_seen")]

    operations = [
        migrations.AddField(
            "packageversion", "owner", models.CharField(blank=True, db_default="", default="", max_length=500)
        ),
        migrations.RunSQL(
            f"DROP INDEX CONCURRENTLY IF EXISTS {_NAME}", migrations.RunSQL.noop
        ),  # an interrupted build leaves an invalid index
        migrations.RunSQL(
            f"CREATE UNIQUE INDEX CONCURRENTLY {_NAME} ON lifecycle_packageversion {_COLUMNS}", migrations.RunSQL.noop
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    f"ALTER TABLE lifecycle_packageversion ADD CONSTRAINT {_NAME} UNIQUE USING INDEX {_NAME},"
                    " DROP CONSTRAINT packageversion_once",
                    migrations.RunSQL.noop,
                ),
            ],
            state_operations=[
                migrations.RemoveConstraint("packageversion", "packageversion_once"),
                migrations.AddConstraint(
                    "packageversion",
                    models.UniqueConstraint(
                        fields=("purl", "version", "source_name", "source_version", "owner"), name=_NAME
                    ),
                ),
            ],
        ),
    ]
