"""Rows of inventories without foreign key constraints: two checks for each row took half of the time of an import."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0030_policies")]

    operations = [
        migrations.AlterField(
            model_name="inventorypackage",
            name="inventory",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="inventory_packages",
                to="lifecycle.inventory",
            ),
        ),
        migrations.AlterField(
            model_name="inventorypackage",
            name="package",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="inventory_packages",
                to="lifecycle.packageversion",
            ),
        ),
    ]
