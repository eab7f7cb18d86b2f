"""`manage.py admission_writer`: write the snapshot that admission answers from, and load what was decided."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from lifecycle.admission.writing import Writer

log = structlog.get_logger(__name__)
_WAIT_S = 1.0


class Command(BaseCommand):
    help = "Write the snapshot that admission answers from, and load decisions. One works, others wait."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="write once, load what waits, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
        writer = Writer(Path(settings.ADMISSION_FOLDER))
        if options["once"]:
            writer.step()
            return
        while not stop.is_set():
            try:
                close_old_connections()
                writer.run(stop)
            except (OperationalError, InterfaceError) as error:
                log.warning("admission_writer_database_unavailable", error=str(error)[:200])
                connection.close()
            except Exception:  # without this process, clusters refuse all images after a day
                log.exception("admission_writer_failed")
            stop.wait(_WAIT_S)
