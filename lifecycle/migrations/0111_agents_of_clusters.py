"""The robot of an agent speaks for one cluster."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

# The page of a cluster made them under this name. Of two clusters with one robot, it stays that of the first.
BIND = """
INSERT INTO lifecycle_clusteragent (user_id, cluster_id)
SELECT robot.user_id, min(cluster.id) FROM accounts_robot robot
JOIN lifecycle_cluster cluster
    ON cluster.team_id = robot.team_id AND robot.name = rtrim(left('agent-' || cluster.slug, 60), '-')
GROUP BY robot.user_id
"""


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("lifecycle", "0110_entries_bind_digests"),
    ]

    operations = [
        migrations.CreateModel(
            name="ClusterAgent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "cluster",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="agents",
                        to="lifecycle.cluster",
                    ),
                ),
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
        ),
        migrations.RunSQL(BIND, migrations.RunSQL.noop),
    ]
