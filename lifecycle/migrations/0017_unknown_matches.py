"""Matches that cannot be judged: their state, the reason, and the unreadable range that causes them.

New columns have a default in the database, so no row is written again, and a process of the old version can still
insert. A longer varchar is a change of the catalogue only.
"""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import Q

_TEXT = {"blank": True, "db_default": "", "default": "", "max_length": 300}


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0016_recipe_manage")]

    operations = [
        migrations.AddField("affectedinterval", "problem", models.CharField(**_TEXT)),
        migrations.AlterField("affectedinterval", "release", models.CharField(blank=True, max_length=300)),
        migrations.AlterField("packageversion", "release", models.CharField(blank=True, max_length=300)),
        migrations.AddField(
            "match",
            "state",
            models.CharField(
                choices=[("open", "Open"), ("unknown", "Unknown")], db_default="open", default="open", max_length=8
            ),
        ),
        migrations.AddField("match", "reason", models.CharField(**_TEXT)),
        AddConstraintNotValid(
            model_name="match",
            constraint=models.CheckConstraint(
                condition=Q(state="open") | (Q(state="unknown", fixed_version="") & ~Q(reason="")),
                name="match_unknown_has_a_reason_and_no_fix",
            ),
        ),
    ]
