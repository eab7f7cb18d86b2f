"""Groups hold roles. The view `lifecycle_heldgrant` has each grant once for every user and way to it."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

COLUMNS = """g.role_id, g.team_id, g.repository_pattern, g.repository_like, g.environment_id, g.expires_at,
    g.granted_by_id, g.created_at"""
# A group in a group is followed once. Each part starts at an index when a user or a team is given.
VIEW = f"""
CREATE VIEW lifecycle_heldgrant AS
SELECT g.id, g.user_id, NULL::bigint AS group_id, NULL::bigint AS through_id, {COLUMNS}
FROM lifecycle_rolegrant g WHERE g.user_id IS NOT NULL
UNION ALL
SELECT g.id, m.user_id, g.group_id, NULL::bigint, {COLUMNS}
FROM lifecycle_rolegrant g JOIN accounts_groupmember m ON m.group_id = g.group_id
WHERE m.user_id IS NOT NULL
UNION ALL
SELECT g.id, m.user_id, g.group_id, m.group_id, {COLUMNS}
FROM lifecycle_rolegrant g
JOIN accounts_groupmember n ON n.group_id = g.group_id
JOIN accounts_groupmember m ON m.group_id = n.member_id
WHERE m.user_id IS NOT NULL
"""  # noqa: S608 -- of constants

# The registry's rights in memory follow groups too (0088): a member gets and loses grants, and a group in a group many.
WATCHED = ("user_id", "role_id", "team_id", "repository_pattern", "environment_id", "expires_at")
MEMBERS = """
CREATE TRIGGER accounts_groupmember_permission_row AFTER INSERT OR UPDATE OR DELETE ON accounts_groupmember
FOR EACH ROW EXECUTE FUNCTION lifecycle_permission_changed('g', 'user_id');
CREATE TRIGGER accounts_groupmember_permission_all AFTER TRUNCATE ON accounts_groupmember
FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_permission_changed('g', 'user_id');
"""
NO_MEMBERS = """
DROP TRIGGER accounts_groupmember_permission_row ON accounts_groupmember;
DROP TRIGGER accounts_groupmember_permission_all ON accounts_groupmember;
"""


def _watch(columns: tuple[str, ...]) -> str:
    is_other = " OR ".join(f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in columns)
    return f"""
DROP TRIGGER lifecycle_rolegrant_permission_update ON lifecycle_rolegrant;
CREATE TRIGGER lifecycle_rolegrant_permission_update AFTER UPDATE ON lifecycle_rolegrant
FOR EACH ROW WHEN ({is_other}) EXECUTE FUNCTION lifecycle_permission_changed('g', 'user_id');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0008_groups"),
        ("lifecycle", "0094_vex_feeds"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="HeldGrant",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("repository_pattern", models.CharField(max_length=255)),
                ("repository_like", models.CharField(max_length=520)),
                ("expires_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "lifecycle_heldgrant",
                "managed": False,
            },
        ),
        migrations.RemoveConstraint(
            model_name="rolegrant",
            name="rolegrant_once_per_principal_role_and_scope",
        ),
        migrations.AddField(
            model_name="rolegrant",
            name="group",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.CASCADE, related_name="role_grants", to="accounts.group"
            ),
        ),
        migrations.AlterField(
            model_name="rolegrant",
            name="user",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="role_grants",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddConstraint(
            model_name="rolegrant",
            constraint=models.UniqueConstraint(
                fields=("user", "group", "role", "team", "repository_pattern", "environment"),
                name="rolegrant_once_per_holder_role_and_scope",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="rolegrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("group", None), ("user__isnull", False)),
                    models.Q(("group__isnull", False), ("user", None)),
                    _connector="OR",
                ),
                name="rolegrant_has_a_user_or_a_group",
            ),
        ),
        migrations.RunSQL(VIEW, "DROP VIEW lifecycle_heldgrant"),
        migrations.RunSQL(MEMBERS + _watch((*WATCHED, "group_id")), NO_MEMBERS + _watch(WATCHED)),
    ]
