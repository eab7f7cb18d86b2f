"""`manage.py reset_second_factor NAME`: remove every second factor of an account."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from accounts.queries import system_user
from lifecycle.authority import services
from lifecycle.core.errors import LifecycleError


class Command(BaseCommand):
    help = "Remove every second factor of an account, for example of the only admin, who lost it. All sessions end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username", help="user name of the account")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"], kind=User.Kind.PERSON).first()
        if user is None:
            raise CommandError("There is no person with this user name.")
        try:
            services.reset_factors(user.pk, actor=system_user())
        except LifecycleError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"Second factors of {user} removed. It signs in with the password alone.")
