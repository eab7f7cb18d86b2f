"""Votes can be signed with a passkey, and an environment can count only those."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0097_sessions_and_second_factors"),
    ]

    operations = [
        migrations.AddField(
            model_name="environment",
            name="requires_signed_votes",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="vote",
            name="signed",
            field=models.JSONField(null=True),
        ),
    ]
