"""`manage.py create_user NAME [--admin]`: create an account and print its generated password once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import ProgrammingError

from accounts.queries import system_user
from lifecycle.authority.services import create_person
from lifecycle.core.errors import LifecycleError


class Command(BaseCommand):
    help = "Create an account and print its generated password once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="user name for signing in")
        parser.add_argument(
            "--admin", action="store_true", help="can create teams, roles and accounts, and read all audit logs"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            _user, password = create_person(
                actor=system_user(), username=options["username"], is_admin=options["admin"]
            )
        except LifecycleError as error:
            raise CommandError(error.message) from error
        except ProgrammingError as error:
            raise CommandError("The database has no tables yet. Run `make up` or `manage.py migrate`.") from error
        self.stdout.write(password)
