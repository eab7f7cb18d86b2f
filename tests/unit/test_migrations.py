"""Migrations do not lock big tables: indexes are built concurrently, constraints are validated later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules

import pytest
from django.apps import apps
from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    BtreeGinExtension,
    ValidateConstraint,
)
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import Migration
from django.db.migrations.operations.base import Operation

import lifecycle.migrations

LAST_EXEMPT = 14  # migrations up to this number were written before the rule
BIG = {
    "advisory", "affectedinterval", "ancestry", "auditevent", "delivery", "derivation", "evaluation", "image",
    "imageinventory", "indexentry", "inventory", "inventorypackage", "job", "joblogline", "layer", "match",
    "packageversion", "repositoryimage", "tag", "tagevent",
}  # fmt: skip
CREATE_INDEX = re.compile(r"create (?:unique )?index (?!concurrently\b).*?\bon (?:only )?(?:\w+\.)?lifecycle_(\w+)")
ADD_CONSTRAINT = re.compile(r"alter table (?:if exists )?(?:only )?(?:\w+\.)?lifecycle_(\w+) .*\badd (?!column\b)")
WasIndexed = Callable[[str, str], bool]


def operations_on_tables(operations: list[Operation]) -> Iterator[Operation]:
    """Yield the operations that change the database, including those inside SeparateDatabaseAndState."""
    for operation in operations:
        if isinstance(operation, migrations.SeparateDatabaseAndState):
            yield from operations_on_tables(operation.database_operations)
        else:
            yield operation


def statements(operation: migrations.RunSQL) -> Iterator[str]:
    """Yield the statements of RunSQL in lower case, without comments and with single spaces."""
    parts = operation.sql if isinstance(operation.sql, (list, tuple)) else [operation.sql]
    for part in parts:
        text = part if isinstance(part, str) else part[0]
        for statement in re.sub(r"--[^\n]*", "", text).lower().split(";"):
            yield " ".join(statement.replace('"', "").split())


def locking_statement(statement: str) -> bool:
    """Whether a statement locks a big table while it builds an index or checks a constraint."""
    if index := CREATE_INDEX.match(statement):
        return index[1] in BIG
    constraint = ADD_CONSTRAINT.match(statement)
    return bool(
        constraint
        and constraint[1] in BIG
        and re.search(r"\b(check|unique|foreign key|exclude|primary key)\b", statement)
        and not re.search(r"\bnot valid\b|\busing index\b", statement)
    )


def problem_on_big_table(model: str, operation: Operation, was_indexed: WasIndexed) -> str:
    """Return why an operation locks a big table, and what to use instead, or ""."""
    if isinstance(operation, (AddIndexConcurrently, AddConstraintNotValid, ValidateConstraint)):
        return ""
    if isinstance(operation, migrations.AddIndex):
        return f"{model}: use AddIndexConcurrently for {operation.index.name}"
    if isinstance(operation, migrations.AddConstraint):
        return (
            f"{model}: use AddConstraintNotValid, and ValidateConstraint in a later migration, for"
            f" {operation.constraint.name}; for a unique one, a unique index built concurrently"
        )
    if isinstance(operation, (migrations.AlterUniqueTogether, migrations.AlterIndexTogether)):
        return f"{model}: {type(operation).__name__} locks the table while it builds indexes"
    if isinstance(operation, (migrations.AddField, migrations.AlterField)):
        is_new = isinstance(operation, migrations.AddField) or not was_indexed(model, operation.name)
        if is_new and (operation.field.db_index or operation.field.unique):
            return f"{model}.{operation.name}: use db_index=False and AddIndexConcurrently"
    return ""


def problems(migration: type[Migration], was_indexed: WasIndexed = lambda model, field: False) -> list[str]:
    """Return the operations of a migration that lock a big table for a time that grows with its rows.

    `was_indexed` says whether a field had an index before: a change that keeps the index builds no new one.
    """
    operations = list(operations_on_tables(migration.operations))
    created = {operation.name.lower() for operation in operations if isinstance(operation, migrations.CreateModel)}
    added = {operation.constraint.name for operation in operations if isinstance(operation, AddConstraintNotValid)}
    found = []
    for operation in operations:
        model = getattr(operation, "model_name", "") or getattr(operation, "name", None) or ""
        model = model.lower()
        if isinstance(operation, migrations.RunSQL):
            found += [f"RunSQL: {statement}" for statement in statements(operation) if locking_statement(statement)]
        elif isinstance(operation, AddIndexConcurrently) and migration.atomic:
            found.append(f"{model}: AddIndexConcurrently needs atomic = False")
        elif isinstance(operation, ValidateConstraint) and operation.name in added:
            found.append(f"{model}: {operation.name} is validated in the migration that adds it")
        elif model in BIG - created:
            found.append(problem_on_big_table(model, operation, was_indexed))
    return [problem for problem in found if problem]


def never_validated(in_order: list[type[Migration]]) -> set[str]:
    """Return the constraints that are added without validation and that no later migration validates."""
    waiting: set[str] = set()
    for migration in in_order:
        operations = list(operations_on_tables(migration.operations))
        waiting -= {operation.name for operation in operations if isinstance(operation, ValidateConstraint)}
        waiting |= {
            operation.constraint.name for operation in operations if isinstance(operation, AddConstraintNotValid)
        }
    return waiting


MIGRATIONS = {
    module.name: import_module(f"lifecycle.migrations.{module.name}").Migration
    for module in sorted(iter_modules(lifecycle.migrations.__path__), key=lambda module: module.name)
}


def test_every_big_table_is_a_model() -> None:
    assert {model._meta.model_name for model in apps.get_app_config("lifecycle").get_models()} >= BIG


def test_migrations_do_not_lock_big_tables() -> None:
    loader = MigrationLoader(None)
    found = {}
    for name, migration in MIGRATIONS.items():
        if int(name[:4]) <= LAST_EXEMPT:
            continue
        before = loader.project_state(("lifecycle", name), at_end=False)

        def was_indexed(model: str, field: str, before: object = before) -> bool:
            old_field = before.models["lifecycle", model].fields[field]
            return old_field.db_index or old_field.unique

        if messages := problems(migration, was_indexed):
            found[name] = messages
    assert found == {}


def test_every_constraint_is_validated() -> None:
    assert never_validated(list(MIGRATIONS.values())) == set()


INDEX = models.Index(fields=["os"], name="image_by_os")
CHECK = models.CheckConstraint(condition=models.Q(size_bytes__gte=0), name="image_size")
UNIQUE = models.UniqueConstraint(fields=["digest"], name="image_once")


@pytest.mark.parametrize(
    "operation",
    [
        migrations.AddIndex("Image", INDEX),
        AddIndexConcurrently("image", INDEX),  # in a migration that is atomic
        migrations.AddConstraint("image", CHECK),
        migrations.AddConstraint("image", UNIQUE),
        migrations.AddField("image", "colour", models.CharField(max_length=9, db_index=True)),
        migrations.AddField("image", "colour", models.CharField(max_length=9, unique=True, null=True)),
        migrations.AddField("job", "image", models.ForeignKey("lifecycle.Image", models.CASCADE, null=True)),
        migrations.AlterField("image", "os", models.CharField(max_length=40, db_index=True)),
        migrations.AlterUniqueTogether("image", {("os", "digest")}),
        migrations.RunSQL("CREATE INDEX image_os ON lifecycle_image (os)"),
        migrations.RunSQL(["SELECT 1", ('CREATE UNIQUE INDEX "a" ON "lifecycle_image" ("os")', [])]),
        migrations.RunSQL("ALTER TABLE lifecycle_image ADD CONSTRAINT c CHECK (size_bytes >= 0)"),
        migrations.RunSQL("ALTER TABLE lifecycle_image ADD UNIQUE (digest)"),
        migrations.SeparateDatabaseAndState(database_operations=[migrations.AddIndex("image", INDEX)]),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_operation_that_locks_a_big_table_is_reported(operation: Operation) -> None:
    migration = type("Migration", (Migration,), {"operations": [operation]})
    assert len(problems(migration)) == 1


@pytest.mark.parametrize(
    "operations",
    [
        [AddIndexConcurrently("image", INDEX)],
        [AddConstraintNotValid("image", CHECK)],
        [ValidateConstraint("image", "image_size")],
        [migrations.AddIndex("environment", models.Index(fields=["name"], name="environment_by_name"))],
        [migrations.AddField("image", "colour", models.CharField(max_length=9, default=""))],
        [
            migrations.AddField(
                "job", "image", models.ForeignKey("lifecycle.Image", models.CASCADE, null=True, db_index=False)
            )
        ],
        [migrations.AlterField("image", "size_bytes", models.IntegerField())],
        [
            migrations.RunSQL("CREATE UNIQUE INDEX CONCURRENTLY image_os ON lifecycle_image (os)"),
            migrations.RunSQL("ALTER TABLE lifecycle_image ADD CONSTRAINT image_once UNIQUE USING INDEX image_os"),
        ],
        [migrations.RunSQL("ALTER TABLE lifecycle_image ADD CONSTRAINT c CHECK (size_bytes >= 0) NOT VALID")],
        [migrations.RunSQL("CREATE INDEX e ON lifecycle_environment (name); DELETE FROM lifecycle_image")],
        [migrations.SeparateDatabaseAndState(state_operations=[migrations.AddConstraint("image", UNIQUE)])],
        [migrations.CreateModel("Tag", fields=[]), migrations.AddIndex("tag", INDEX)],  # a new table is empty
        [BtreeGinExtension()],
    ],
    ids=lambda operations: type(operations[0]).__name__,
)
def test_operation_that_locks_no_big_table_is_accepted(operations: list[Operation]) -> None:
    migration = type("Migration", (Migration,), {"operations": operations, "atomic": False})
    assert problems(migration) == []


def test_field_that_keeps_its_index_is_accepted() -> None:
    operation = migrations.AlterField("image", "os", models.CharField(max_length=80, db_index=True))
    migration = type("Migration", (Migration,), {"operations": [operation]})
    assert problems(migration, was_indexed=lambda model, field: (model, field) == ("image", "os")) == []


def test_constraint_must_be_validated_in_a_later_migration() -> None:
    add, validate = AddConstraintNotValid("image", CHECK), ValidateConstraint("image", "image_size")
    both = type("Migration", (Migration,), {"operations": [add, validate]})
    first = type("Migration", (Migration,), {"operations": [add]})
    second = type("Migration", (Migration,), {"operations": [validate]})
    assert problems(both) == ["image: image_size is validated in the migration that adds it"]
    assert problems(first) == problems(second) == []
    assert never_validated([first]) == {"image_size"}
    assert never_validated([first, second]) == set()
