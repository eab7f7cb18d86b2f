from __future__ import annotations

import importlib
import importlib.util
import pkgutil

from django.apps import AppConfig

import lifecycle


class LifecycleConfig(AppConfig):
    name = "lifecycle"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Importing it makes it the current Celery app, so that web and ticker send wake-ups to our broker.
        from config import celery  # noqa: F401, PLC0415 -- needs the settings
        from lifecycle.core import lookups  # noqa: F401, PLC0415 -- registers itself

        load_handlers()


def load_handlers() -> None:
    """Import the `handlers` module of every package. It registers jobs, schedules and event subscriptions."""
    for package in sorted(module.name for module in pkgutil.iter_modules(lifecycle.__path__) if module.ispkg):
        name = f"lifecycle.{package}.handlers"
        if importlib.util.find_spec(name):
            importlib.import_module(name)
