"""Stored secrets and their keys: how every sealed field is sealed again with a new key."""

from __future__ import annotations

from django.db import transaction

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import KeysRotated
from lifecycle.core import sealing


def rotate(*, actor: User) -> tuple[int, list[str]]:
    """Seal every stored secret with FIELD_KEY; return (number of sealed values, rows that cannot be read).

    Tokens, passwords and links are stored as hashes, so they need no key. Each row has its own transaction, so it can
    run while everything runs, and again after an interruption.
    """
    sealed_again, unreadable = 0, []
    for model, field in sealing.registered_fields():
        for pk in list(model._default_manager.order_by("pk").values_list("pk", flat=True)):
            with transaction.atomic():
                row = model._default_manager.select_for_update().filter(pk=pk).first()
                stored = bytes(getattr(row, field)) if row is not None else b""
                if row is None or sealing.is_current(stored):
                    continue
                try:
                    secret = sealing.unseal(stored, row, field)
                except sealing.Unreadable as error:
                    unreadable.append(f"{row._meta.db_table} {pk} {field}: {error}")
                    continue
                setattr(row, field, sealing.seal(secret, row, field))
                row.save(update_fields=[field])
                sealed_again += 1
    with transaction.atomic():
        details = KeysRotated(key=sealing.current_key_id(), sealed=sealed_again, unreadable=len(unreadable))
        audit.record(Action.KEYS_ROTATED, actor=actor, details=details)
    return sealed_again, unreadable
