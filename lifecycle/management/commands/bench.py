"""`manage.py bench NAME [--images N] [--json]`: run a benchmark in its own database."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from lifecycle.bench.running import BUILT, IMAGES_DEFAULT, NAMES, run_apart, run_here
from lifecycle.bench.types import Figure
from lifecycle.core.errors import LifecycleError

NOT_BUILT = 2


class Command(BaseCommand):
    help = "Run one benchmark in its own database, Redis database and registry folder. They are removed at the end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", choices=NAMES, help=f"one of {', '.join(BUILT)}; the others are not available yet")
        parser.add_argument("--images", type=_count, default=IMAGES_DEFAULT, help="number of images (default: 10000)")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        parser.add_argument("--save", type=Path, metavar="FILE", help="also write the JSON object to a file")
        parser.add_argument("--here", action="store_true", help="use the current database; for internal use")

    def handle(self, *args: Any, **options: Any) -> None:
        name, images = options["name"], options["images"]
        if name not in BUILT:
            self.stderr.write(f"bench {name}: not built")
            sys.exit(NOT_BUILT)
        if options["here"]:
            report = run_here(name, images, note=_note)
            self.stdout.write(orjson.dumps(report).decode())
            return
        signal.signal(signal.SIGTERM, _interrupted)  # so that the database is removed then too
        signal.signal(signal.SIGHUP, _interrupted)
        try:
            report = run_apart(name, images)
        except LifecycleError as error:
            raise CommandError(error.message) from None
        text = orjson.dumps(report).decode()
        if options["save"] is not None:
            options["save"].parent.mkdir(parents=True, exist_ok=True)
            options["save"].write_text(text + "\n")
        self.stdout.write(text if options["json"] else _table(report))


def _note(text: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _interrupted(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def _table(report: dict[str, Any]) -> str:
    """Return the figures as a table for users: title, value, unit, target, and whether the target is met."""
    lines = [f"{report['bench']}, {report['images']:,} images ({report['seconds']} s, {report['peak_rss_mb']} MB)"]
    for title, item in report["figures"].items():
        figure = Figure(item["value"], item["unit"], item["target"])
        target = ""
        if figure.target is not None:
            sign = ">=" if figure.is_more_better else "<="
            target = f"target {sign} {figure.target:g}{'' if figure.is_met else '  MISSED'}"
        if "before" in item:
            target += f"  before {item['before']:g}"
        lines.append(f"  {title:<44}{figure.value:>12,.6g} {figure.unit:<12}{target}".rstrip())
    return "\n".join(lines)
