"""`manage.py events`: list the domain events and their subscribers."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from lifecycle.events import subscriptions


class Command(BaseCommand):
    help = "List all domain events with their meanings and subscribers. Subscribers are in calling order."

    def handle(self, *args: Any, **options: Any) -> None:
        for kind, functions in sorted(subscriptions().items(), key=lambda item: item[0].__name__):
            meaning = (kind.__doc__ or "").splitlines()[0]
            self.stdout.write(f"{kind.__name__}: {meaning}")
            for function in functions:
                self.stdout.write(f"  {function.__module__}.{function.__qualname__}")
