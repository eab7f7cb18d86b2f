"""`python -m config.collect`: collect the static files without servers or secrets, for the build of an image."""

from __future__ import annotations

import os
import secrets
import sys


def main() -> None:
    """Run `collectstatic` with dummy settings that exist only in this process."""
    values = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": "postgres://nobody@localhost/nothing",
        "REDIS_URL": "redis://localhost/0",
        "REGISTRY_URL": "http://localhost",
        "PUBLIC_URL": "http://localhost",
        "TOKEN_KEY": "none",
        "TOKEN_CERT": "none",
    }
    for name in ("SECRET_KEY", "FIELD_KEY", "REGISTRY_HOOK_SECRET"):
        values[name] = secrets.token_urlsafe(48)
    for name, value in values.items():
        os.environ[name] = value
    from django.core.management import execute_from_command_line  # noqa: PLC0415 -- reads the environment

    execute_from_command_line([sys.argv[0], "collectstatic", "--noinput", "-v0"])


if __name__ == "__main__":
    main()
