"""`manage.py sealer`: seal audit events into the log, and publish its files."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from lifecycle.sealed_log.keys import KeyRefused
from lifecycle.sealed_log.running import AnchorsUnread, Sealer

log = structlog.get_logger(__name__)
_WAIT_S = 1.0


class Command(BaseCommand):
    help = "Seal audit events into the log, and publish its files. One works, others wait. Needs the owner's role."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="seal what waits, publish, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
        try:
            sealer = Sealer(Path(settings.LOG_FOLDER), Path(settings.LOG_KEY_FILE))
        except KeyRefused as problem:
            raise CommandError(str(problem)) from None
        if options["once"]:
            try:
                while sealer.step():
                    pass
            except AnchorsUnread as problem:
                raise CommandError(
                    f"Nothing is signed before each anchor was read. {problem}. If one is gone for good, set"
                    " SEAL_WITHOUT_ANCHORS=true, and remove the anchor."
                ) from None
            return
        while not stop.is_set():
            try:
                close_old_connections()
                sealer.run(stop)
            except (OperationalError, InterfaceError) as error:
                log.warning("sealer_database_unavailable", error=str(error)[:200])
                connection.close()
            except Exception:  # the next try may succeed, and an alert tells how long nothing was sealed
                log.exception("sealer_failed")
            stop.wait(_WAIT_S)
