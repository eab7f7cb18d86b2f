"""The roles the product brings, and the row that stands for Gravingdock itself."""

from typing import Any

from django.db import migrations

# Written out, not imported: a migration does the same for ever (verbs of release 0.1).
_CREATOR = ["image.view", "image.create", "image.rebuild", "image.scan", "promotion.request"]
_ALL = [
    "image.view", "image.create", "image.amend", "image.delete", "image.rebuild", "image.scan", "image.sign",
    "image.quarantine", "promotion.request", "promotion.approve", "promotion.execute", "promotion.breakglass",
    "waiver.request", "waiver.approve", "policy.manage", "environment.manage", "team.manage", "robot.manage",
    "runtime.report", "audit.read",
]  # fmt: skip
ROLES = {
    "viewer": ["image.view"],
    "creator": _CREATOR,
    "maintainer": [*_CREATOR, "image.amend", "image.delete", "image.sign"],
    "approver": ["image.view", "promotion.approve", "waiver.approve"],
    "deployer": ["image.view", "promotion.execute"],
    "security": [
        "image.view", "image.scan", "image.quarantine", "policy.manage", "waiver.request", "waiver.approve",
        "runtime.report",
    ],
    "auditor": ["image.view", "audit.read"],
    "owner": [verb for verb in _ALL if verb != "promotion.breakglass"],
}  # fmt: skip


def forwards(apps: Any, schema_editor: Any) -> None:
    role, user = apps.get_model("accounts", "Role"), apps.get_model("accounts", "User")
    for slug, verbs in ROLES.items():
        role.objects.update_or_create(
            slug=slug, defaults={"name": slug.capitalize(), "verbs": sorted(verbs), "is_builtin": True}
        )
    user.objects.get_or_create(
        username="gravingdock", defaults={"kind": "system", "password": "!", "first_name": "Gravingdock"}
    )


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]
    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
