#!/usr/bin/env python
"""Django's command line."""

import os
import sys


def main() -> None:
    # Only the owner of the tables can change them, and the sealed log. Other commands run as the application role.
    needs_owner = len(sys.argv) > 1 and sys.argv[1] in {"migrate", "createcachetable", "sealer"}
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.owner" if needs_owner else "config.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415 -- needs the line above

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
