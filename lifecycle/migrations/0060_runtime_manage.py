"""The permission of the verb `runtime.manage`, and guardian's rows for the existing grants that include it."""

from typing import Any

from django.db import migrations

# Written out, not imported: a migration does the same forever.
VERBS = (
    "image.view", "image.create", "image.amend", "image.delete", "image.rebuild", "image.scan", "image.sign",
    "image.quarantine", "recipe.manage", "promotion.request", "promotion.approve", "promotion.execute",
    "promotion.breakglass", "waiver.request", "waiver.approve", "policy.manage", "environment.manage", "team.manage",
    "robot.manage", "runtime.report", "runtime.manage", "audit.read",
)  # fmt: skip
PERMISSIONS = tuple((verb.replace(".", "_"), f"May {verb}") for verb in VERBS)
# Like `authority.projection`: a grant on the whole team gives rows on the team, a grant for one environment rows on the
# environment, and a grant on some repositories rows on each repository that matches.
_LIVE = """
    FROM lifecycle_rolegrant g JOIN accounts_role r ON r.id = g.role_id
    WHERE 'runtime.manage' = ANY(r.verbs) AND (g.expires_at IS NULL OR g.expires_at > now())
"""
_ROWS = {
    ("accounts", "team"): (
        "lifecycle_teamuserpermission",
        f"SELECT DISTINCT g.user_id, g.team_id {_LIVE} AND g.environment_id IS NULL AND g.repository_pattern = '*'",
    ),
    ("lifecycle", "environment"): (
        "lifecycle_environmentuserpermission",
        f"SELECT DISTINCT g.user_id, g.environment_id {_LIVE} AND g.environment_id IS NOT NULL",
    ),
    ("lifecycle", "repository"): (
        "lifecycle_repositoryuserpermission",
        "SELECT DISTINCT g.user_id, p.id "
        + _LIVE.replace("WHERE", "JOIN lifecycle_repository p ON p.team_id = g.team_id WHERE")
        + "AND g.environment_id IS NULL AND g.repository_pattern <> '*' AND p.family LIKE g.repository_like",
    ),
}


def project(apps: Any, schema_editor: Any) -> None:
    # Django creates new permissions after the last migration, so this one creates its own.
    content_types = apps.get_model("contenttypes", "ContentType")
    permissions = apps.get_model("auth", "Permission")
    for (app, model), (table, holders) in _ROWS.items():
        kind = content_types.objects.filter(app_label=app, model=model).first()
        if kind is None:
            continue  # a new installation: it has no grants yet
        permission, _ = permissions.objects.get_or_create(
            content_type=kind, codename="runtime_manage", defaults={"name": "May runtime.manage"}
        )
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} (user_id, content_object_id, permission_id)"  # noqa: S608 -- our own constants
                f" SELECT h.*, %s FROM ({holders}) h ON CONFLICT DO NOTHING",
                [permission.pk],
            )


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_runtime_manage"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("lifecycle", "0059_ingest_verdict_marked_at"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="environment",
            options={
                "default_permissions": (),
                "ordering": ("team", "position"),
                "permissions": PERMISSIONS,
            },
        ),
        migrations.AlterModelOptions(
            name="repository",
            options={
                "default_permissions": (),
                "permissions": PERMISSIONS,
                "verbose_name_plural": "repositories",
            },
        ),
        migrations.RunPython(project, migrations.RunPython.noop),
    ]
