"""What verified provenances name as the bases of images. Images that have one are checked again, which reads it."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0090_archived_environments"),
    ]

    operations = [
        migrations.CreateModel(
            name="ProvenBase",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("base_digest", models.CharField(max_length=135)),
                (
                    "image",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="proven_bases",
                        to="lifecycle.image",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["base_digest"], name="provenbase_by_base")],
                "constraints": [models.UniqueConstraint(fields=("image", "base_digest"), name="provenbase_once")],
            },
        ),
        migrations.RunSQL(
            "UPDATE lifecycle_trustcheck SET is_due = true WHERE image_id IN ("
            "SELECT image_id FROM lifecycle_signature"
            " WHERE state = 'verified' AND predicate_type LIKE '%slsa.dev/provenance/%')",
            migrations.RunSQL.noop,
        ),
    ]
