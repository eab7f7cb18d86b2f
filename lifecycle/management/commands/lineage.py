"""`manage.py lineage`: print all images with their direct base images."""

from __future__ import annotations

from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandParser

from lifecycle.lineage import queries, services


class Command(BaseCommand):
    help = "Print one line for each image and each of its direct base images, sorted."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON lines instead of text")
        parser.add_argument(
            "--rebuild-closure", action="store_true", help="recompute the table of indirect bases first"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["rebuild_closure"]:
            services.rebuild_closure()
        for image, base, evidence, confidence in queries.all_derivations():
            if options["json"]:
                line = {"image": image, "base": base, "evidence": evidence, "confidence": confidence}
                self.stdout.write(orjson.dumps(line).decode())
            else:
                self.stdout.write(f"{image} on {base} ({', '.join(evidence)}; {confidence})")
