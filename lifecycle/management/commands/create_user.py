"""`manage.py create_user NAME [--admin]`: make an account; its generated password is printed once."""

from __future__ import annotations

import secrets
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit


class Command(BaseCommand):
    help = "Make an account and print its generated password, once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--admin", action="store_true", help="may make teams and give roles, everywhere")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["username"]
        if User.objects.filter(username=name).exists():
            raise CommandError(f"There is an account {name} already.")
        password = secrets.token_urlsafe(15)
        with transaction.atomic():
            user = User(username=name, is_superuser=options["admin"])
            user.set_password(password)
            user.full_clean()
            user.save()
            audit.record("user.created", actor=system_user(), subject=user, user=name, is_admin=options["admin"])
        self.stdout.write(password)
