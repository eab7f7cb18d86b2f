"""`manage.py create_token USER [--days N]`: print one API token of a user."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from accounts.queries import system_user
from accounts.tokens import DEFAULT_DAYS
from lifecycle.authority.services import create_api_token
from lifecycle.core.errors import LifecycleError


class Command(BaseCommand):
    help = "Print a new API token of a user, on standard output; it is the password of registry clients too."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="whose it is")
        parser.add_argument("--days", type=float, default=DEFAULT_DAYS, help="how long it lives (default %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no account {options['username']}.")
        try:
            text = create_api_token(user, actor=system_user(), name="create_token", days=options["days"])
        except LifecycleError as error:
            raise CommandError(error.message) from error
        self.stdout.write(text)
