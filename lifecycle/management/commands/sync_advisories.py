"""`manage.py sync_advisories --from DIR_OR_URL [--feed NAME]`: update advisories from an OSV bulk export."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from accounts.queries import system_user
from lifecycle.advisories.exploit_sync import ExploitReport, sync_exploits
from lifecycle.advisories.feeds import FEED_KINDS
from lifecycle.advisories.models import Feed
from lifecycle.advisories.services import group_again, sync_feed
from lifecycle.core import locks
from lifecycle.core.errors import LifecycleError


def feed_name(location: str) -> str:
    """Return the default name of a feed: the name of its host or folder."""
    if location.startswith(("http://", "https://")):
        return (urlsplit(location).hostname or location)[:120]
    return Path(location).resolve().name[:120] or "root"


class Command(BaseCommand):
    help = (
        "Update the advisories of a feed from an OSV bulk export, and match them to packages. With --kind, update the"
        " severities of CVE records, the list of known exploited vulnerabilities (KEV), or exploit scores (EPSS)."
        " Exits with 1 if a folder or a record could not be read. A range that cannot be read is listed: it gives"
        " findings in state unknown."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from", dest="location", required=True, metavar="DIR_OR_URL", help="folder or URL of the bulk export"
        )
        parser.add_argument(
            "--kind", choices=list(dict(FEED_KINDS)), default=Feed.Kind.OSV.value, help="what it is (default: osv)"
        )
        parser.add_argument(
            "--accept-smaller", action="store_true", help="also if most of what is stored is no longer there"
        )
        parser.add_argument("--feed", metavar="NAME", help="name of the feed (default: the name of the folder or host)")

    def handle(self, *args: Any, **options: Any) -> None:
        location: str = options["location"]
        if location.startswith(("http://", "https://")) and (host := urlsplit(location).netloc.rpartition("@")[2]):
            # The address was typed on the server itself, so calls to it are allowed.
            settings.OUTBOUND_ALLOW = [*settings.OUTBOUND_ALLOW, host]
        name = (options["feed"] or feed_name(location))[:120]
        with locks.alone(f"feed:{name}") as is_alone:
            if not is_alone:
                self.stderr.write(f"Another run of feed {name} is not finished. Wait for its end, then try again.")
                sys.exit(1)
            self._run(name, location, options)

    def _run(self, name: str, location: str, options: dict[str, Any]) -> None:
        started = time.monotonic()
        shared = {"feed_name": name, "actor": system_user(), "accept_smaller": options["accept_smaller"]}
        try:
            if options["kind"] in {Feed.Kind.KEV, Feed.Kind.EPSS}:
                group_again()
                exploits = sync_exploits(options["kind"], location, **shared)
                Feed.objects.filter(name=name).update(location=location[:500])
                self._told(exploits, time.monotonic() - started)
                return
            report = sync_feed(
                location,
                kind=options["kind"],
                progress=self._progress if options["verbosity"] > 1 else None,
                **shared,
            )
        except LifecycleError as error:
            self.stderr.write(error.message)
            sys.exit(1)
        Feed.objects.filter(name=name).update(location=location[:500])
        for message in report.errors:
            self.stderr.write(message)
        for range_ in report.unreadable:
            self.stdout.write(f"not readable: {range_}")
        self.stdout.write(
            f"{report.feed}: {report.indexed} records in {report.directories} folders, {report.stored} stored, "
            f"{report.tombstoned} tombstoned, {report.packages_rematched} package versions rematched, "
            f"{report.unreadable_count} ranges not readable, {report.error_count} errors, "
            f"{time.monotonic() - started:.1f} s"
        )
        if report.error_count:
            sys.exit(1)

    def _told(self, report: ExploitReport, duration_s: float) -> None:
        of = f" of {report.data_at:%Y-%m-%d}" if report.data_at else ""
        self.stdout.write(
            f"{report.feed}: {report.entries} entries{of}, {report.added} new, {report.changed} changed, "
            f"{report.removed} removed, {duration_s:.1f} s"
        )

    def _progress(self, directory: str, done: int, total: int) -> None:
        self.stdout.write(f"{directory}: {done} of {total}")
