"""`manage.py events`: every domain event, and the functions that subscribe to it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from lifecycle.events import subscriptions


class Command(BaseCommand):
    help = "List every domain event with its meaning and the functions that subscribe to it, in the order of calling."

    def handle(self, *args: Any, **options: Any) -> None:
        for kind, functions in sorted(subscriptions().items(), key=lambda item: item[0].__name__):
            meaning = (kind.__doc__ or "").splitlines()[0]
            self.stdout.write(f"{kind.__name__}: {meaning}")
            for function in functions:
                self.stdout.write(f"  {function.__module__}.{function.__qualname__}")
