"""Index only the images that declare a base: each ingested image looks there, and read all of them until now."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0009_indexes_for_many_images"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="image",
            name="image_by_declared_base",
        ),
        migrations.AddIndex(
            model_name="image",
            index=models.Index(
                condition=models.Q(("base_digest", ""), _negated=True),
                fields=["base_digest"],
                name="image_by_declared_base",
            ),
        ),
    ]
