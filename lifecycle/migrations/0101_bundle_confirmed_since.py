"""Since when the agent of a cluster reports the certificates that its webhooks trust."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0100_anchors"),
    ]

    operations = [
        migrations.AddField(model_name="cluster", name="bundle_at", field=models.DateTimeField(null=True)),
    ]
