"""Which rejected credentials were codes of an authenticator app."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0114_provider_of_sessions"),
    ]

    operations = [
        migrations.AddField(
            model_name="credentialfailure",
            name="is_code",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
