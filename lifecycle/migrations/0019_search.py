"""Indexes for the search: words of repository names, tags by name, advisories by the id upstream. Without a lock."""

import django.contrib.postgres.indexes
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

from lifecycle.registry.models import words_of_name


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("lifecycle", "0018_unreadable_ranges")]
    operations = [
        AddIndexConcurrently(
            "repository", django.contrib.postgres.indexes.GinIndex(words_of_name(), name="repository_by_words")
        ),
        AddIndexConcurrently("tag", models.Index(fields=["name"], name="tag_by_name")),
        AddIndexConcurrently(
            "packageversion",
            models.Index(
                fields=["source_name"],
                condition=models.Q(("source_name", ""), _negated=True),
                name="packageversion_by_source",
            ),
        ),
        AddIndexConcurrently(
            "advisory", django.contrib.postgres.indexes.GinIndex(fields=["upstream"], name="advisory_upstream")
        ),
    ]
