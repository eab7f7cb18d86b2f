"""When a cluster was deleted, and whether it wants images of new Pods to be named by digest."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0102_entries_of_breakglass"),
    ]

    operations = [
        migrations.AddField(model_name="cluster", name="ended_at", field=models.DateTimeField(null=True)),
        migrations.AddField(
            model_name="cluster", name="mutate", field=models.BooleanField(db_default=False, default=False)
        ),
    ]
