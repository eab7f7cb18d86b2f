"""`manage.py ticker`: search for lost wake-ups, and run scheduled work."""

from __future__ import annotations

import signal
import threading
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from lifecycle.jobs import schedule, services

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Search for jobs with lost wake-ups, and run scheduled work. Several tickers can run at the same time."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="run one round, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
        while not stop.is_set():
            try:
                close_old_connections()
                services.sweep()
                schedule.run_due()
            except (OperationalError, InterfaceError) as error:
                log.warning("ticker_database_unavailable", error=str(error)[:200])
                connection.close()
            if options["once"]:
                return
            stop.wait(settings.JOB_SWEEP_S)
