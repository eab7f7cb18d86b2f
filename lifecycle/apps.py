from __future__ import annotations

from django.apps import AppConfig


class LifecycleConfig(AppConfig):
    name = "lifecycle"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Becomes the current app, so that web and ticker send their wake-ups to our broker.
        from config import celery  # noqa: F401, PLC0415 -- needs the settings
        from lifecycle import reactions  # noqa: PLC0415 -- needs the app registry
        from lifecycle.core import lookups  # noqa: F401, PLC0415 -- registers itself

        reactions.connect()
