"""An index for the tag events since a time, which are looked for every few seconds."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0068_due_dates_of_remedies")]
    operations = [
        AddIndexConcurrently("tagevent", models.Index(fields=["at"], name="tagevent_by_time")),
    ]
