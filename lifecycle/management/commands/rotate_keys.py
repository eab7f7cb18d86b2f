"""`manage.py rotate_keys`: seal every stored secret with the current FIELD_KEY."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.queries import system_user
from lifecycle.authority.services import keys
from lifecycle.core import sealing


class Command(BaseCommand):
    help = "Seal every stored secret with FIELD_KEY. Then FIELD_KEYS_OLD can be removed."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count, unreadable = keys.rotate(actor=system_user())
        except sealing.Unreadable as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{count} secrets sealed with key {sealing.current_key_id()}")
        if unreadable:
            raise CommandError("Cannot be read, enter them again: " + "; ".join(unreadable))
