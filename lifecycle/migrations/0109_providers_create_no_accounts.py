"""New providers create no accounts until an admin turns it on. Those that exist stay as they are."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0108_proof_of_votes_and_rules"),
    ]

    operations = [
        migrations.AlterField(
            model_name="identityprovider",
            name="creates_accounts",
            field=models.BooleanField(default=False),
        ),
    ]
