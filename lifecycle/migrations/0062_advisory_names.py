"""The names of advisories as rows, kept by a trigger, in place of indexes on arrays."""

import django.db.models.deletion
from django.db import migrations, models

_NAMES = """
SELECT a.id, named.name, named.kind
FROM {advisories} a
CROSS JOIN LATERAL (
    SELECT DISTINCT unnest(a.aliases) AS name, 'alias' AS kind
    UNION ALL SELECT DISTINCT unnest(a.upstream), 'upstream'
    UNION ALL SELECT DISTINCT unnest(a.related), 'related'
) named
"""
_INSERT = "INSERT INTO lifecycle_advisoryname (advisory_id, name, kind) " + _NAMES
_FILL = _INSERT.format(advisories="lifecycle_advisory")
_TRIGGERS = f"""
CREATE FUNCTION lifecycle_advisory_names_new() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {_INSERT.format(advisories="new_rows")};
    RETURN NULL;
END $$;
CREATE FUNCTION lifecycle_advisory_names_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE changed bigint[];
BEGIN
    SELECT array_agg(n.id) INTO changed FROM new_rows n JOIN old_rows o ON o.id = n.id
    WHERE (n.aliases, n.upstream, n.related) IS DISTINCT FROM (o.aliases, o.upstream, o.related);
    IF changed IS NOT NULL THEN
        DELETE FROM lifecycle_advisoryname WHERE advisory_id = ANY(changed);
        {_INSERT.format(advisories="new_rows")} WHERE a.id = ANY(changed);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER advisory_names_new AFTER INSERT ON lifecycle_advisory
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_advisory_names_new();
CREATE TRIGGER advisory_names_changed AFTER UPDATE ON lifecycle_advisory
    REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_advisory_names_changed();
"""  # noqa: S608 -- only constants of this module are inserted
_NO_TRIGGERS = """
DROP TRIGGER advisory_names_new ON lifecycle_advisory;
DROP TRIGGER advisory_names_changed ON lifecycle_advisory;
DROP FUNCTION lifecycle_advisory_names_new();
DROP FUNCTION lifecycle_advisory_names_changed();
"""


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0061_alerts")]

    operations = [
        migrations.CreateModel(
            name="AdvisoryName",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=200)),
                (
                    "kind",
                    models.CharField(
                        choices=[("alias", "Alias"), ("upstream", "Upstream"), ("related", "Related")], max_length=8
                    ),
                ),
                (
                    "advisory",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="names", to="lifecycle.advisory"
                    ),
                ),
            ],
            options={"indexes": [models.Index(fields=["name", "kind"], name="advisory_by_other_name")]},
        ),
        # In this order: the triggers keep writers out until the end, so that no record of theirs is left out.
        migrations.RunSQL(_TRIGGERS, _NO_TRIGGERS),
        migrations.RunSQL(_FILL, migrations.RunSQL.noop),
        migrations.RemoveIndex(model_name="advisory", name="advisory_aliases"),
        migrations.RemoveIndex(model_name="advisory", name="advisory_upstream"),
        migrations.RemoveIndex(model_name="advisory", name="advisory_related"),
    ]
