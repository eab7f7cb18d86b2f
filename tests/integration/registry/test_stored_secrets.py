"""Secrets at rest: sealed for one field of one row, readable with the current and the old keys, sealed again."""

from __future__ import annotations

from io import StringIO

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db.models import BinaryField

from config.embedded.keys import fernet_key
from lifecycle.audit.models import AuditEvent
from lifecycle.core import sealing
from lifecycle.core.errors import RegistryRefused
from lifecycle.registry.clients import client_for, set_credentials
from lifecycle.registry.models import Registry

pytestmark = pytest.mark.django_db
FIELD = "password_encrypted"


@pytest.fixture
def registry():
    row = Registry.objects.create(name="other", endpoint="https://registry.example.com")
    set_credentials(row, username="robot", password="a secret of ours")
    return Registry.objects.get(pk=row.pk)


def test_sealed_secret_is_read_only_in_its_own_place(registry):
    stored = bytes(registry.password_encrypted)
    assert b"secret" not in stored
    assert sealing.unseal(stored, registry, FIELD) == "a secret of ours"
    other = Registry.objects.create(name="evil", endpoint="https://evil.example.com", password_encrypted=stored)
    with pytest.raises(sealing.Unreadable, match="another row"):
        sealing.unseal(stored, other, FIELD)
    with pytest.raises(RegistryRefused):  # a row that an attacker copied reads nothing
        client_for(other)
    assert client_for(registry)
    with pytest.raises(sealing.Unreadable):
        sealing.unseal(stored, registry, "username")
    for position in (3, 8, len(stored) - 1):
        changed = bytearray(stored)
        changed[position] ^= 1
        with pytest.raises(sealing.Unreadable):
            sealing.unseal(bytes(changed), registry, FIELD)


def test_equal_secrets_are_sealed_differently(registry):
    first, second = (sealing.seal("same", registry, FIELD) for _ in range(2))
    assert first != second
    assert (sealing.seal("", registry, FIELD), sealing.unseal(b"", registry, FIELD)) == (b"", "")
    with pytest.raises(ValueError, match="Save the row first"):
        sealing.seal("x", Registry(name="new"), FIELD)


def test_rotation_seals_old_keys_and_old_formats_again(registry, settings):
    old, fernet = settings.FIELD_KEY, fernet_key()
    legacy = Registry.objects.create(
        name="legacy",
        endpoint="https://legacy.example.com",
        username="robot",
        password_encrypted=Fernet(fernet).encrypt(b"from an older release"),
    )
    empty = Registry.objects.create(name="empty", endpoint="https://empty.example.com")
    settings.FIELD_KEY, settings.FIELD_KEYS_OLD = fernet_key(), []
    with pytest.raises(RegistryRefused):
        client_for(registry)
    output = StringIO()
    with pytest.raises(CommandError, match="lifecycle_registry"):
        call_command("rotate_keys", stdout=output)
    assert output.getvalue().startswith("0 secrets")
    settings.FIELD_KEYS_OLD = [old, fernet]
    assert client_for(registry)  # before the rotation
    output = StringIO()
    call_command("rotate_keys", stdout=output)
    assert output.getvalue() == f"2 secrets sealed with key {sealing.current_key_id()}\n"
    settings.FIELD_KEYS_OLD = []
    for row, secret in ((registry, "a secret of ours"), (legacy, "from an older release"), (empty, "")):
        row.refresh_from_db()
        assert sealing.unseal(bytes(row.password_encrypted), row, FIELD) == secret
        assert sealing.is_current(bytes(row.password_encrypted))
    call_command("rotate_keys", stdout=StringIO())
    last = AuditEvent.objects.filter(action="keys.rotated").latest("pk")
    assert last.details == {"key": sealing.current_key_id(), "sealed": 0, "unreadable": 0}


def test_every_encrypted_field_is_rotated():
    named = {
        (model, field.name)
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, BinaryField) and ("encrypted" in field.name or "sealed" in field.name)
    }
    assert named == set(sealing.registered_fields())
