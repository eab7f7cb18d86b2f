"""`manage.py create_user NAME [--admin]`: make an account; its generated password is printed once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import ProgrammingError

from accounts.queries import system_user
from lifecycle.authority.services import create_person
from lifecycle.core.errors import LifecycleError


class Command(BaseCommand):
    help = "Make an account and print its generated password, once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="what they sign in as")
        parser.add_argument("--admin", action="store_true", help="may make teams and give roles, everywhere")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            _user, password = create_person(
                actor=system_user(), username=options["username"], is_admin=options["admin"]
            )
        except LifecycleError as error:
            raise CommandError(error.message) from error
        except ProgrammingError as error:
            raise CommandError("The database has no tables yet: run `manage.py migrate`, or `make up`.") from error
        self.stdout.write(password)
