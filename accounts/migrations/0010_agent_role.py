"""The built-in role `agent`, for what reports a cluster or host. A custom role with that name gets another one."""

from typing import Any

from django.db import migrations


def forwards(apps: Any, schema_editor: Any) -> None:
    roles = apps.get_model("accounts", "Role").objects
    roles.filter(slug="agent", is_builtin=False).update(slug="agent-custom")
    roles.update_or_create(
        slug="agent", defaults={"name": "Agent", "verbs": ["runtime.report"], "is_builtin": True}
    )  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [("accounts", "0009_identities")]
    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
