"""A log of what changes rights, written by triggers in the transaction of the change (docs/adr/0018)."""

from django.db import migrations, models

FUNCTION = """
CREATE FUNCTION lifecycle_permission_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind text := TG_ARGV[0];
    before text;
    after text;
BEGIN
    IF TG_LEVEL = 'STATEMENT' THEN
        kind := '*';
        after := '';
    ELSIF kind = '*' THEN
        after := '';
    ELSE
        IF TG_OP <> 'INSERT' THEN
            before := coalesce(to_jsonb(OLD) ->> TG_ARGV[1], '');
        END IF;
        IF TG_OP <> 'DELETE' THEN
            after := coalesce(to_jsonb(NEW) ->> TG_ARGV[1], '');
        END IF;
    END IF;
    INSERT INTO lifecycle_permissionchange (transaction, kind, key, at)
    SELECT DISTINCT pg_current_xact_id()::text::bigint, kind, key, clock_timestamp()
    FROM unnest(ARRAY[before, after]) AS key WHERE key IS NOT NULL;
    RETURN NULL;
END $$;
"""

# (table, kind, column of the key, operations beside UPDATE, columns whose change counts)
WATCHED: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    ("accounts_user", "u", "id", "DELETE",
     ("is_active", "must_change_password", "is_superuser", "username", "kind")),
    ("accounts_robot", "u", "user_id", "INSERT OR DELETE", ("user_id", "responsible_id")),
    ("accounts_apitoken", "t", "id", "DELETE",
     ("user_id", "kind", "lookup", "secret_sha256", "service", "made_by_id", "parent_id", "expires_at", "revoked_at")),
    ("accounts_role", "*", "", "DELETE", ("verbs",)),
    ("accounts_team", "*", "", "INSERT OR DELETE", ("slug",)),
    ("lifecycle_rolegrant", "g", "user_id", "INSERT OR DELETE",
     ("user_id", "role_id", "team_id", "repository_pattern", "environment_id", "expires_at")),
    ("lifecycle_environment", "*", "", "INSERT OR DELETE", ("team_id", "prefix")),
    ("lifecycle_repository", "r", "name", "INSERT OR DELETE",
     ("registry_id", "team_id", "name", "family", "environment_id")),
    ("lifecycle_registry", "*", "", "DELETE", ("is_managed",)),
)  # fmt: skip


def _create(table: str, kind: str, key: str, others: str, columns: tuple[str, ...]) -> str:
    call = f"EXECUTE FUNCTION lifecycle_permission_changed('{kind}', '{key}')"
    is_other = " OR ".join(f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in columns)
    return f"""
CREATE TRIGGER {table}_permission_update AFTER UPDATE ON {table} FOR EACH ROW WHEN ({is_other}) {call};
CREATE TRIGGER {table}_permission_row AFTER {others} ON {table} FOR EACH ROW {call};
CREATE TRIGGER {table}_permission_all AFTER TRUNCATE ON {table} FOR EACH STATEMENT {call};
"""


def _drop(table: str) -> str:
    return "".join(f"DROP TRIGGER {table}_permission_{part} ON {table};\n" for part in ("update", "row", "all"))


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_runtime_manage"),
        ("lifecycle", "0087_debts_of_people"),
    ]

    operations = [
        migrations.CreateModel(
            name="PermissionChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("transaction", models.BigIntegerField(db_index=True)),
                ("kind", models.CharField(max_length=1)),
                ("key", models.CharField(blank=True, max_length=255)),
                ("at", models.DateTimeField()),
            ],
            options={"default_permissions": ()},
        ),
        migrations.RunSQL(
            FUNCTION + "".join(_create(*row) for row in WATCHED),
            "".join(_drop(row[0]) for row in WATCHED) + "DROP FUNCTION lifecycle_permission_changed();",
        ),
    ]
