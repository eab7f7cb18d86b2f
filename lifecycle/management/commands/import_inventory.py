"""`manage.py import_inventory FILE [--team SLUG]`: import images, layers and packages from an inventory file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import TEAM_SLUG
from accounts.queries import system_user
from lifecycle import events
from lifecycle.sbom.inventories import import_inventories


class Command(BaseCommand):
    help = (
        "Import images, layers and packages from an inventory file (docs/reference/inventory-format.md)."
        " Exits with 1 if a row was refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="JSON lines, optionally compressed with gzip")
        parser.add_argument("--team", default="imported", help="slug of the team that owns new repositories")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            TEAM_SLUG(options["team"])
            with events.collected(events.DerivationsChanged) as changes:
                report = import_inventories(options["file"], team_slug=options["team"], actor=system_user())
        except ValidationError as error:
            raise CommandError(f"--team: {' '.join(error.messages)}") from None
        except OSError as error:
            raise CommandError(f"{options['file']}: {error}") from None
        derived = {image_id for change in changes for image_id in change.image_ids}
        for number, reason in report.refused:
            self.stderr.write(f"line {number}: {reason}")
        self.stdout.write(
            f"{report.rows} rows: {len(report.new_image_ids)} new images, {len(report.scanned_image_ids)} new "
            f"inventories, {len(report.new_package_ids)} new package versions, "
            f"{len(derived)} images with a new base, {len(report.refused)} refused"
        )
        if report.refused:
            sys.exit(1)
