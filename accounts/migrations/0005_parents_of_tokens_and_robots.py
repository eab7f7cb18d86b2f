"""A token ends with the token that it was created with; a robot depends on the user who is responsible for it."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models import F


def _creators_answer(apps: Any, schema_editor: Any) -> None:
    apps.get_model("accounts", "Robot").objects.filter(responsible=None).update(responsible=F("created_by"))


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_recipe_manage")]

    operations = [
        migrations.AddField(
            model_name="apitoken",
            name="parent",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="children",
                to="accounts.apitoken",
            ),
        ),
        migrations.AddField(
            model_name="robot",
            name="responsible",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="robots_answered_for",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.RunPython(_creators_answer, migrations.RunPython.noop),
    ]
