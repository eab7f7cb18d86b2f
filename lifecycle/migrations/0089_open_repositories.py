"""Who can see and pull a repository without a grant, and when it was archived. All that exist are private."""

from django.db import migrations, models

# The registry's rights in memory follow these columns too (0088).
WATCHED = ("registry_id", "team_id", "name", "family", "environment_id")
OPENED = ("visibility", "archived_at")


def _watch(columns: tuple[str, ...]) -> str:
    is_other = " OR ".join(f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in columns)
    return f"""
DROP TRIGGER lifecycle_repository_permission_update ON lifecycle_repository;
CREATE TRIGGER lifecycle_repository_permission_update AFTER UPDATE ON lifecycle_repository
FOR EACH ROW WHEN ({is_other}) EXECUTE FUNCTION lifecycle_permission_changed('r', 'name');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0088_permission_changes"),
    ]

    operations = [
        migrations.AddField(
            model_name="repository",
            name="archived_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="repository",
            name="visibility",
            field=models.CharField(
                choices=[("private", "Private"), ("internal", "Internal"), ("public", "Public")],
                db_default="private",
                default="private",
                max_length=8,
            ),
        ),
        migrations.AddIndex(
            model_name="repository",
            index=models.Index(
                condition=models.Q(("visibility", "private"), _negated=True),
                fields=["visibility"],
                name="repository_open_to_others",
            ),
        ),
        migrations.RunSQL(_watch((*WATCHED, *OPENED)), _watch(WATCHED)),
    ]
