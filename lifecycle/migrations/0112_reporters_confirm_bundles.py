"""Each reporter says which certificates the webhooks trust, and for which clusters a new authority waits."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0111_agents_of_clusters")]

    operations = [
        migrations.AddField("reporter", "bundle_sha256", models.CharField(max_length=64, null=True)),
        migrations.AddField("reporter", "bundle_at", models.DateTimeField(null=True)),
        migrations.AddField("cluster", "authority_waits_until", models.DateTimeField(null=True)),
        # Agents say it again within 30 seconds.
        migrations.RemoveField("cluster", "bundle_sha256"),
        migrations.RemoveField("cluster", "bundle_at"),
    ]
