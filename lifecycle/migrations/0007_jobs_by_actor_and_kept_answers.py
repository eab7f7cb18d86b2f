"""An index for people's own jobs, and an answer's status is always there: it is stored with what it answers."""

from typing import Any

from django.db import migrations, models


def forget_unanswered(apps: Any, schema_editor: Any) -> None:
    """Drop rows without a status: nothing ever wrote one, but a constraint must not meet one either."""
    apps.get_model("lifecycle", "IdempotencyKey").objects.filter(status=None).delete()


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0006_protected_tags")]
    operations = [
        migrations.AddIndex("job", models.Index(fields=["actor", "-id"], name="job_by_actor")),
        migrations.RunPython(forget_unanswered, migrations.RunPython.noop),
        migrations.AlterField("idempotencykey", "status", models.IntegerField()),
    ]
