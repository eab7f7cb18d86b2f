"""Tell package versions of one purl apart by what else is said of them, and decides how they are judged."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0011_failed_jobs"),
    ]

    operations = [
        # An index entry holds 2,704 bytes. What is cut off here is shown only: matching has columns of its own.
        migrations.RunSQL(
            "UPDATE lifecycle_packageversion SET version = left(version, 100), source_name = left(source_name, 60),"
            " source_version = left(source_version, 60) WHERE octet_length(purl) + octet_length(version)"
            " + octet_length(source_name) + octet_length(source_version) > 2500",
            migrations.RunSQL.noop,
        ),
        migrations.AddConstraint(
            model_name="packageversion",
            constraint=models.UniqueConstraint(
                fields=("purl", "version", "source_name", "source_version"), name="packageversion_once"
            ),
        ),
        migrations.AlterField(
            model_name="packageversion",
            name="purl",
            field=models.TextField(),
        ),
    ]
