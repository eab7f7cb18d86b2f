"""Indexes to find the records of one vulnerability, built without a lock."""

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0027_vulnerabilities")]

    operations = [
        AddIndexConcurrently("advisory", GinIndex(fields=["related"], name="advisory_related")),
        AddIndexConcurrently(
            "advisory",
            models.Index(fields=["id"], condition=models.Q(("is_grouped", False)), name="advisory_ungrouped"),
        ),
        AddIndexConcurrently("advisory", models.Index(fields=["vulnerability"], name="advisory_by_vulnerability")),
    ]
