"""An index to take the waiting events of each cluster in turn, built without a lock."""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0084_withdrawals")]

    operations = [
        AddIndexConcurrently(
            "runtimeevent",
            models.Index(
                fields=["cluster", "id"], condition=models.Q(("event__isnull", False)), name="runtimeevent_waiting"
            ),
        ),
        RemoveIndexConcurrently("runtimeevent", "runtimeevent_to_fold"),
    ]
