"""When an environment was archived: nothing is promoted to it since then."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0089_open_repositories"),
    ]

    operations = [
        migrations.AddField(
            model_name="environment",
            name="archived_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
