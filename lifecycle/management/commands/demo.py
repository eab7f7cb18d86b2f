"""`manage.py demo [--again]`: run the demonstration, once or again from the beginning."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.embedded.keys import write_private
from lifecycle.cli.client import CommandFailed
from lifecycle.core.errors import LifecycleError
from lifecycle.demo import report
from lifecycle.demo.story import Story, remove_folders_of_killed_runs
from lifecycle.demo.telling import DemonstrationFailed, Teller

INTERRUPTED: Final = 130  # the exit code of shells for an interrupt


class Command(BaseCommand):
    help = "Build, push, promote and rebuild real images with the role accounts. Exits with 0 if everything succeeded."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--again", action="store_true", help="run it from the beginning, even if it has succeeded before"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        result = settings.HOME / "demo.json"
        if result.exists() and not options["again"]:
            self.stdout.write("The demonstration has already succeeded. Use --again to run it from the beginning.")
            return
        with _alone(settings.HOME / "demo.lock"):
            result.unlink(missing_ok=True)  # the file means that the last run succeeded
            remove_folders_of_killed_runs()
            document = self._run(settings.HOME)
            write_private(result, json.dumps(document, indent=2) + "\n")
        self.stdout.write(f"\nThe demonstration took {document['seconds']:.0f} s. Results: {result}\n")
        for line in report.table([report.RebuiltImage(**image) for image in document["images"]]):
            self.stdout.write(line)

    def _run(self, home: Path) -> dict[str, Any]:
        self.stdout.write("Demonstration with real images, from the first push to a patched base.")
        teller = Teller(self._write)
        try:
            return Story(teller, home).run()
        except (DemonstrationFailed, CommandFailed) as error:
            raise CommandError(f"The demonstration failed after {teller.seconds:.0f} s. {error}") from None
        except LifecycleError as error:
            raise CommandError(f"The demonstration failed after {teller.seconds:.0f} s. {error.message}") from None
        except KeyboardInterrupt:
            self.stderr.write("The demonstration was interrupted.")
            sys.exit(INTERRUPTED)

    def _write(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lock a file during the block, because two runs at the same time would move each other's tags."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError("The demonstration is already running.") from None
        yield
