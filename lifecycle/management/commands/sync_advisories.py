"""`manage.py sync_advisories --from DIR_OR_URL [--feed NAME]`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from accounts.queries import system_user
from lifecycle.advisories.services import sync_feed
from lifecycle.core.errors import LifecycleError


def feed_name(location: str) -> str:
    """Return the default name of a feed: its host's, or its folder's."""
    if location.startswith(("http://", "https://")):
        return (urlsplit(location).hostname or location)[:120]
    return Path(location).resolve().name[:120] or "root"


class Command(BaseCommand):
    help = (
        "Make a feed's advisories what an OSV bulk export says, and matches true. Exit 1: something could not be read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", dest="location", required=True, metavar="DIR_OR_URL", help="the bulk export")
        parser.add_argument("--feed", metavar="NAME", help="default: the folder's or host's name")

    def handle(self, *args: Any, **options: Any) -> None:
        location: str = options["location"]
        if location.startswith(("http://", "https://")) and (host := urlsplit(location).netloc.rpartition("@")[2]):
            # Whoever types the address at the server's own prompt has named it as one we may call.
            settings.OUTBOUND_ALLOW = [*settings.OUTBOUND_ALLOW, host]
        started = time.monotonic()
        try:
            report = sync_feed(
                location,
                feed_name=(options["feed"] or feed_name(location))[:120],
                actor=system_user(),
                progress=self._progress if options["verbosity"] > 1 else None,
            )
        except LifecycleError as error:
            self.stderr.write(error.message)
            sys.exit(1)
        for message in report.errors:
            self.stderr.write(message)
        self.stdout.write(
            f"{report.feed}: {report.indexed} records in {report.directories} folders, {report.stored} stored, "
            f"{report.tombstoned} tombstoned, {report.packages_rematched} package versions rematched, "
            f"{report.error_count} errors, {time.monotonic() - started:.1f} s"
        )
        if report.error_count:
            sys.exit(1)

    def _progress(self, directory: str, done: int, total: int) -> None:
        self.stdout.write(f"{directory}: {done} of {total}")
