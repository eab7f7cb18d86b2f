"""Where the private part of a signing key is, when it is not in the database."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0046_registries")]

    operations = [
        migrations.AddField(
            model_name="signingkey",
            name="uri",
            field=models.CharField(blank=True, db_default="", default="", max_length=500),
        ),
    ]
