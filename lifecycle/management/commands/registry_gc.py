"""`manage.py registry_gc`: free the layers that no image of the embedded registry has any more."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import nullcontext
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts.queries import system_user
from config.embedded import collecting, postgres, settings_file
from config.embedded.__main__ import HOME
from config.embedded.supervisor import Supervisor
from lifecycle.retention.collecting import failures_noted, note_collected, why_not_collect
from lifecycle.retention.constants import COLLECT


class Command(BaseCommand):
    help = "Stop the embedded registry, delete what no image there needs any more, and start it again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say how much there is, and stop nothing")
        parser.add_argument(
            "--lose-restorable", action="store_true", help="also when deleted images can still be restored"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        values = settings_file.read(HOME / "env")
        is_ours = "registry" in values.get("EMBEDDED_PARTS", "").split(",")
        if not is_ours or f"http://localhost:{values.get('REGISTRY_PORT')}" != settings.REGISTRY_URL:
            raise CommandError(f"The registry {settings.REGISTRY_URL} is not one that `make up` runs here. {COLLECT}")
        sockets = postgres.socket_folder(HOME)
        supervisor = Supervisor(HOME, sockets.with_name(sockets.name + "-sv"))
        if not supervisor.is_running():
            raise CommandError("Gravingdock is not running here. Run `make up` first.")
        if refused := why_not_collect(lose_restorable=options["lose_restorable"] or options["dry_run"]):
            raise CommandError(str(refused))
        if not options["dry_run"]:
            self.stdout.write("The registry is stopped meanwhile: pushes and pulls fail, and jobs try again.")
        noted = nullcontext() if options["dry_run"] else failures_noted(actor=system_user())
        try:
            with noted:
                found = collecting.collect(supervisor, HOME / "registry", is_dry_run=options["dry_run"])
        except collecting.NotPossible as error:
            raise CommandError(str(error)) from None
        if options["dry_run"]:
            self.stdout.write(f"{found.blobs} blobs can be deleted.")
            return
        note_collected(actor=system_user(), blobs=found.blobs, freed_bytes=found.freed_bytes, stopped_s=found.stopped_s)
        self.stdout.write(
            f"{found.blobs} blobs deleted, {found.freed_bytes} bytes freed; the registry was stopped for"
            f" {found.stopped_s:.0f} s."
        )
