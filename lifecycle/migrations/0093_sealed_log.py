"""The sealed audit log. Its rows can only be added, by the owner of the tables: that is the sealer."""

from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

GUARDED = ("logorigin", "sealedentry", "logcheckpoint")
WRITTEN_BY_OWNER = (*GUARDED, "logtile", "subjecthead", "eventsalt", "pseudonym")

TRIGGERS = "".join(
    f"""
CREATE TRIGGER {name}_no_change BEFORE UPDATE OR DELETE ON lifecycle_{name}
    FOR EACH ROW EXECUTE FUNCTION lifecycle_audit_refuse();
CREATE TRIGGER {name}_no_truncate BEFORE TRUNCATE ON lifecycle_{name}
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_audit_refuse();
"""
    for name in GUARDED
)
DROP = "".join(
    f"DROP TRIGGER {name}_no_change ON lifecycle_{name}; DROP TRIGGER {name}_no_truncate ON lifecycle_{name};\n"
    for name in GUARDED
)


def revoke(apps: Any, schema_editor: Any) -> None:
    app = schema_editor.connection.ops.quote_name(settings.DATABASE_APP_ROLE)
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        (owner,) = cursor.fetchone()
        if owner == settings.DATABASE_APP_ROLE:
            return  # one role for all: the triggers alone guard the log
        for name in WRITTEN_BY_OWNER:
            cursor.execute(f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON lifecycle_{name} FROM {app}")


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0092_trust_rules"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="EventSalt",
            fields=[
                ("event_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("salts", models.BinaryField()),
            ],
        ),
        migrations.CreateModel(
            name="LogOrigin",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(unique=True)),
                ("name", models.CharField(max_length=255, unique=True)),
                ("key", models.TextField()),
                (
                    "why",
                    models.CharField(
                        choices=[("started", "Started"), ("restored", "Restored"), ("key_changed", "Key Changed")],
                        max_length=11,
                    ),
                ),
                ("previous", models.CharField(blank=True, max_length=255)),
                ("previous_size", models.BigIntegerField(null=True)),
                ("previous_root", models.BinaryField(null=True)),
                ("restored_size", models.BigIntegerField(null=True)),
                ("created_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Pseudonym",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("code", models.CharField(max_length=24, unique=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("erased_at", models.DateTimeField(null=True)),
                (
                    "user",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="LogCheckpoint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("size", models.BigIntegerField()),
                ("root", models.BinaryField()),
                ("note", models.TextField()),
                ("at", models.DateTimeField()),
                (
                    "origin",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="lifecycle.logorigin",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["at"], name="logcheckpoint_by_time")],
                "constraints": [models.UniqueConstraint(fields=("origin", "size"), name="logcheckpoint_once_per_size")],
            },
        ),
        migrations.CreateModel(
            name="LogTile",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("level", models.SmallIntegerField()),
                ("number", models.BigIntegerField()),
                ("hashes", models.BinaryField()),
                (
                    "origin",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="lifecycle.logorigin",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("origin", "level", "number"), name="logtile_once_per_place")
                ],
            },
        ),
        migrations.CreateModel(
            name="SealedEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("index", models.BigIntegerField()),
                ("event_id", models.BigIntegerField(null=True, unique=True)),
                ("hash", models.BinaryField()),
                ("entry", models.BinaryField()),
                (
                    "origin",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="lifecycle.logorigin",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "sealed entries",
                "constraints": [models.UniqueConstraint(fields=("origin", "index"), name="sealedentry_once_per_index")],
            },
        ),
        migrations.CreateModel(
            name="SubjectHead",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=20)),
                ("key", models.CharField(max_length=150)),
                ("count", models.BigIntegerField()),
                ("index", models.BigIntegerField()),
                ("hash", models.BinaryField()),
                (
                    "origin",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="lifecycle.logorigin",
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("origin", "kind", "key"), name="subjecthead_once")],
            },
        ),
        migrations.RunSQL(TRIGGERS, DROP),
        migrations.RunPython(revoke, migrations.RunPython.noop),
    ]
