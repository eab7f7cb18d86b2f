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
        # Becomes the current app, so that web and ticker send their wake-ups to our broker.
        from config import celery  # noqa: F401, PLC0415 -- needs the settings
        from lifecycle.core import lookups  # noqa: F401, PLC0415 -- registers itself

        load_handlers()


def load_handlers() -> None:
    """Import every package's `handlers` module: jobs, schedules and subscriptions to events register themselves."""
    for package in sorted(module.name for module in pkgutil.iter_modules(lifecycle.__path__) if module.ispkg):
        name = f"lifecycle.{package}.handlers"
        if importlib.util.find_spec(name):
            importlib.import_module(name)
