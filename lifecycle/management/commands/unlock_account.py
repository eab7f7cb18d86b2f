"""`manage.py unlock_account NAME`: reset the failed sign-ins of an account."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import UserUnlocked
from lifecycle.authority import limiter


class Command(BaseCommand):
    help = "Reset the failed sign-ins of an account, so that its owner can sign in without waiting."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="user name of the account")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["username"]
        with transaction.atomic():
            count = limiter.forgive(name)
            audit.record(Action.USER_UNLOCKED, actor=system_user(), details=UserUnlocked(user=name, forgotten=count))
        self.stdout.write(f"{count} failed sign-ins reset")
