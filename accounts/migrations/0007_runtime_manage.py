"""The verb `runtime.manage`. Of the existing roles, only the built-in maintainer, security and owner get it."""

from typing import Any

import django.contrib.postgres.fields
from django.db import migrations, models

# Written out, not imported: a migration does the same forever.
VERBS = (
    "image.view", "image.create", "image.amend", "image.delete", "image.rebuild", "image.scan", "image.sign",
    "image.quarantine", "recipe.manage", "promotion.request", "promotion.approve", "promotion.execute",
    "promotion.breakglass", "waiver.request", "waiver.approve", "policy.manage", "environment.manage", "team.manage",
    "robot.manage", "runtime.report", "runtime.manage", "audit.read",
)  # fmt: skip
PERMISSIONS = tuple((verb.replace(".", "_"), f"May {verb}") for verb in VERBS)


def give_to_builtin_roles(apps: Any, schema_editor: Any) -> None:
    for role in apps.get_model("accounts", "Role").objects.filter(
        slug__in=("maintainer", "security", "owner"), is_builtin=True
    ):
        role.verbs = sorted({*role.verbs, "runtime.manage"})
        role.save(update_fields=["verbs"])


def take_from_all_roles(apps: Any, schema_editor: Any) -> None:
    for role in apps.get_model("accounts", "Role").objects.filter(verbs__contains=["runtime.manage"]):
        role.verbs = [verb for verb in role.verbs if verb != "runtime.manage"]
        role.save(update_fields=["verbs"])


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_profiles_and_links"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="team",
            options={
                "default_permissions": (),
                "ordering": ("slug",),
                "permissions": PERMISSIONS,
            },
        ),
        migrations.AlterField(
            model_name="role",
            name="verbs",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(
                    choices=[(verb, verb) for verb in VERBS],
                    max_length=40,
                ),
                size=None,
            ),
        ),
        migrations.RunPython(give_to_builtin_roles, take_from_all_roles),
    ]
