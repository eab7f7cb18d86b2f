"""`manage.py rebuild_grants`: rewrite guardian's rows from the role grants, or only compare them."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from accounts.models import User
from lifecycle.authority.projection import differs, project


class Command(BaseCommand):
    help = (
        "Rewrite guardian's object permissions from the role grants, which are authoritative."
        " With --check, only list the users whose rows differ, and exit with 1 if there are any."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="only compare, without changes")

    def handle(self, *args: Any, **options: Any) -> None:
        users = User.objects.order_by("pk")
        if options["check"]:
            different = [user.username for user in users.iterator() if differs(user)]
            self.stdout.write("\n".join(different) or "Guardian's rows match the grants.")
            sys.exit(1 if different else 0)
        count = 0
        for user in users.iterator():
            with transaction.atomic():
                project(user)
            count += 1
        self.stdout.write(f"{count} users")
