"""`manage.py rebuild_grants`: make guardian's rows again from the role grants."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from accounts.models import User
from lifecycle.authority.projection import project


class Command(BaseCommand):
    help = "Make guardian's object permissions again from the role grants, which are the truth."

    def handle(self, *args: Any, **options: Any) -> None:
        count = 0
        for user in User.objects.order_by("pk").iterator():
            with transaction.atomic():
                project(user)
            count += 1
        self.stdout.write(f"{count} users")
