"""Settings of environments: what is production, deadlines, soak, queue, and who cannot approve."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_profiles_and_links"),
        ("lifecycle", "0028_advisory_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="environment",
            name="approve_within_s",
            field=models.PositiveIntegerField(default=604800),
        ),
        migrations.AddField(
            model_name="environment",
            name="auto_execute",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="environment",
            name="excludes_build_trigger",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="environment",
            name="excludes_committer",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="environment",
            name="excludes_policy_author",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="environment",
            name="excludes_requester",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="environment",
            name="execute_within_s",
            field=models.PositiveIntegerField(default=259200),
        ),
        migrations.AddField(
            model_name="environment",
            name="is_production",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="environment",
            name="queue_policy",
            field=models.CharField(
                choices=[("queue", "Queue"), ("latest-wins", "Latest Wins")], default="queue", max_length=12
            ),
        ),
        migrations.AddField(
            model_name="environment",
            name="revision",
            field=models.PositiveIntegerField(default=1),
        ),
        migrations.AddField(
            model_name="environment",
            name="soak_s",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddConstraint(
            model_name="environment",
            constraint=models.CheckConstraint(
                condition=models.Q(("queue_policy__in", ("queue", "latest-wins"))),
                name="environment_queue_policy_known",
            ),
        ),
        # The names that a new environment takes as production. Its deadlines stay as they were.
        migrations.RunSQL(
            "UPDATE lifecycle_environment SET is_production = true WHERE slug IN ('production', 'prod')",
            migrations.RunSQL.noop,
        ),
    ]
