"""The audit trail can only grow: triggers refuse change to everybody, and the application role lacks the right.

Every event gets a pending row in its own transaction, for the sealer. The application role gets what it needs on all
tables, those of later migrations too.
"""

from typing import Any

from django.conf import settings
from django.db import migrations

TRIGGERS = """
CREATE FUNCTION lifecycle_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER auditevent_no_change BEFORE UPDATE OR DELETE ON lifecycle_auditevent
    FOR EACH ROW EXECUTE FUNCTION lifecycle_audit_refuse();
CREATE TRIGGER auditevent_no_truncate BEFORE TRUNCATE ON lifecycle_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_audit_refuse();
CREATE FUNCTION lifecycle_audit_pending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lifecycle_auditpending (event_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER auditevent_pending AFTER INSERT ON lifecycle_auditevent
    FOR EACH ROW EXECUTE FUNCTION lifecycle_audit_pending();
"""

DROP = """
DROP TRIGGER auditevent_pending ON lifecycle_auditevent;
DROP TRIGGER auditevent_no_truncate ON lifecycle_auditevent;
DROP TRIGGER auditevent_no_change ON lifecycle_auditevent;
DROP FUNCTION lifecycle_audit_pending();
DROP FUNCTION lifecycle_audit_refuse();
"""


def grant(apps: Any, schema_editor: Any) -> None:
    quote = schema_editor.connection.ops.quote_name
    app = quote(settings.DATABASE_APP_ROLE)
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        (owner,) = cursor.fetchone()
        if owner == settings.DATABASE_APP_ROLE:
            return  # one role for all: the triggers alone hold the trail
        for statement in (
            f"GRANT USAGE ON SCHEMA public TO {app}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {app}",
            f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {app}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {app}",
            f"REVOKE UPDATE, DELETE, TRUNCATE ON lifecycle_auditevent FROM {app}",
            f"REVOKE UPDATE, DELETE, TRUNCATE ON lifecycle_auditpending FROM {app}",
        ):
            cursor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("lifecycle", "0001_initial")]
    operations = [
        migrations.RunSQL(TRIGGERS, DROP),
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
