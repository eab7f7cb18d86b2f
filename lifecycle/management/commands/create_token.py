"""`manage.py create_token USER [--days N]`: create an API token for a user."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from accounts.queries import system_user
from accounts.tokens import DEFAULT_DAYS
from lifecycle.authority.services import create_api_token
from lifecycle.core.errors import LifecycleError


class Command(BaseCommand):
    help = "Create an API token for a user and print it. Registry clients use it as the password."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="user name of the account")
        parser.add_argument(
            "--days", type=float, default=DEFAULT_DAYS, help="days until it expires (default %(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"Account {options['username']} not found.")
        try:
            text = create_api_token(user, actor=system_user(), name="create_token", days=options["days"])
        except LifecycleError as error:
            raise CommandError(error.message) from error
        self.stdout.write(text)
