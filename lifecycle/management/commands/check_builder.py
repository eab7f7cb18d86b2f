"""`manage.py check_builder`: say whether this machine can confine builds, and exit with 1 if builds are refused."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from lifecycle.rebuild.builders import box


class Command(BaseCommand):
    help = "Try the box of the embedded builder. Exits with 1 when this machine cannot give it and builds are refused."

    def handle(self, *args: Any, **options: Any) -> None:
        why = box.problem()
        if not why:
            self.stdout.write("Builds run in a box.")
        elif settings.BUILD_UNCONFINED:
            self.stdout.write(f"Builds are NOT confined (BUILD_UNCONFINED=1): {why}")
        else:
            self.stdout.write(box.refusal(why))
            sys.exit(1)
