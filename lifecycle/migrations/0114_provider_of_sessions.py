"""When a provider last confirmed the person of a browser session."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0113_pod_templates"),
    ]

    operations = [
        migrations.AddField(
            model_name="browsersession",
            name="provider_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
