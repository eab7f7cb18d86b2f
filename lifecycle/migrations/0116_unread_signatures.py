"""In which repository signatures could not be read. Texts of before name repositories: those images are read again."""

from django.db import migrations, models
from django.db.models import Value


def forget_names(apps, schema_editor):
    checks = apps.get_model("lifecycle", "TrustCheck").objects
    checks.exclude(problem="").update(problem="", is_due=True)


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0115_wrong_codes"),
    ]

    operations = [
        migrations.AddField(
            model_name="trustcheck",
            name="unread",
            field=models.JSONField(db_default=Value([], models.JSONField()), default=list),
        ),
        migrations.RunPython(forget_names, migrations.RunPython.noop, elidable=True),
    ]
