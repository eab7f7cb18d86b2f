"""When the requester saw how a request ended, and an index for the list of one's own requests."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0021_key_versions")]
    operations = [
        migrations.AddField("promotionrequest", "seen_at", models.DateTimeField(blank=True, null=True)),
        AddIndexConcurrently(
            "promotionrequest", models.Index(fields=["requested_by", "-id"], name="promotion_by_requester")
        ),
    ]
