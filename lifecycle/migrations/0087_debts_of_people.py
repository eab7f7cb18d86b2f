"""A debt of break-glass keeps everybody who brought the annotation in; another can follow a reviewed one."""

import django.contrib.postgres.fields
from django.db import migrations, models

FILL = """
UPDATE lifecycle_admissiondebt SET user_names = ARRAY[user_name]
WHERE user_name <> '' AND user_name !~ '^system:serviceaccount:kube-system:[a-z-]+-controller$'
"""


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0086_bypass"),
    ]

    operations = [
        migrations.AddField(
            model_name="admissiondebt",
            name="user_names",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=253), blank=True, default=list, size=None
            ),
        ),
        migrations.AlterField(
            model_name="admissiondebt",
            name="fingerprint",
            field=models.CharField(db_index=True, max_length=64),
        ),
        migrations.AddConstraint(
            model_name="admissiondebt",
            constraint=models.UniqueConstraint(
                condition=models.Q(("reviewed_at", None)),
                fields=("fingerprint",),
                name="admissiondebt_one_open_per_fingerprint",
            ),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
