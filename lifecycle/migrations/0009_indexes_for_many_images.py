"""Fewer indexes on what is written in bulk, and one more where "which images carry this package" is read.

Every image paid for twins of its indexes that serve LIKE, and every layer, tag and package for one that a constraint
repeats. A tenth of each page of images stays free, so that a recount of their findings touches no index at all.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("lifecycle", "0008_missing_children_of_indexes"),
    ]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE lifecycle_image SET (fillfactor = 90)", "ALTER TABLE lifecycle_image RESET (fillfactor)"
        ),
        migrations.AlterField(
            model_name="ancestry",
            name="ancestor",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="descendant_rows",
                to="lifecycle.image",
            ),
        ),
        migrations.AlterField(
            model_name="derivation",
            name="base",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="derived_edges",
                to="lifecycle.image",
            ),
        ),
        migrations.AlterField(
            model_name="image",
            name="base_digest",
            field=models.CharField(blank=True, max_length=135),
        ),
        migrations.AlterField(
            model_name="image",
            name="config_digest",
            field=models.CharField(blank=True, max_length=135),
        ),
        migrations.AlterField(
            model_name="image",
            name="diff_chain_id",
            field=models.CharField(blank=True, max_length=71),
        ),
        migrations.AlterField(
            model_name="image",
            name="digest_chain_id",
            field=models.CharField(blank=True, max_length=71),
        ),
        migrations.AlterField(
            model_name="image",
            name="subject_digest",
            field=models.CharField(blank=True, max_length=135),
        ),
        migrations.AlterField(
            model_name="imageinventory",
            name="image",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="image_inventories",
                to="lifecycle.image",
            ),
        ),
        migrations.AlterField(
            model_name="inventorypackage",
            name="inventory",
            field=models.ForeignKey(
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
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="inventory_packages",
                to="lifecycle.packageversion",
            ),
        ),
        migrations.AlterField(
            model_name="layer",
            name="image",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="layers", to="lifecycle.image"
            ),
        ),
        migrations.AlterField(
            model_name="repositoryimage",
            name="repository",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="repository_images",
                to="lifecycle.repository",
            ),
        ),
        migrations.AlterField(
            model_name="tag",
            name="repository",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="tags",
                to="lifecycle.repository",
            ),
        ),
        migrations.AlterField(
            model_name="tagevent",
            name="tag",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="events", to="lifecycle.tag"
            ),
        ),
        migrations.AddIndex(
            model_name="image",
            index=models.Index(fields=["subject_digest"], name="image_by_subject"),
        ),
        migrations.AddIndex(
            model_name="image",
            index=models.Index(fields=["config_digest"], name="image_by_config"),
        ),
        migrations.AddIndex(
            model_name="image",
            index=models.Index(fields=["base_digest"], name="image_by_declared_base"),
        ),
        migrations.AddIndex(
            model_name="image",
            index=models.Index(fields=["diff_chain_id"], name="image_by_diff_chain"),
        ),
        migrations.AddIndex(
            model_name="image",
            index=models.Index(fields=["digest_chain_id"], name="image_by_digest_chain"),
        ),
        migrations.AddIndex(
            model_name="inventorypackage",
            index=models.Index(fields=["package", "inventory"], name="inventorypackage_by_package"),
        ),
        migrations.AlterField(
            model_name="imageinventory",
            name="inventory",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="image_inventories",
                to="lifecycle.inventory",
            ),
        ),
        migrations.AddIndex(
            model_name="imageinventory",
            index=models.Index(fields=["inventory", "image"], name="imageinventory_by_inventory"),
        ),
    ]
