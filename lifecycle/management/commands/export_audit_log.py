"""`manage.py export_audit_log FILE`: a signed export of the whole audit log, or of a period or subject of it."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.queries import system_user
from lifecycle.core.errors import LifecycleError
from lifecycle.sealed_log.exporting import Wanted, export


class Command(BaseCommand):
    help = "Write a signed export of the audit log, of any size. Check it with gravingdock-verify."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="file to write; it must not exist")
        parser.add_argument("--since", type=date.fromisoformat, help="first day in UTC, such as 2026-11-30")
        parser.add_argument("--until", type=date.fromisoformat, help="last day in UTC")
        parser.add_argument(
            "--subject", default="", help="digest, PR-13, team shop, person kim or environment shop/dev"
        )
        parser.add_argument("--since-size", type=int, help="size of a checkpoint that you kept: adds a proof for it")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = Wanted(options["since"], options["until"], options["subject"], options["since_size"])
        try:
            with export(system_user(), wanted, limit=None) as stream, options["file"].open("xb") as target:
                shutil.copyfileobj(stream, target)
        except (LifecycleError, OSError) as problem:
            raise CommandError(str(problem)) from None
        self.stdout.write(f"Written to {options['file']}.")
