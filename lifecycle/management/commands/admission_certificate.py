"""`manage.py admission_certificate`: renew the certificate of the admission port, and change its authority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from lifecycle.admission import certificates
from lifecycle.admission.rotation import lagging_clusters, why_not_use_new_authority


class Command(BaseCommand):
    help = "Show and renew the certificate of the admission port. No review fails meanwhile."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--rotate-ca", action="store_true", help="make a new authority; clusters must trust it first")
        what.add_argument(
            "--use-new-ca",
            action="store_true",
            help="serve a certificate of the new authority now; clusters that did not confirm it then refuse",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        folder, names = Path(settings.ADMISSION_FOLDER), settings.ADMISSION_NAMES
        is_new = certificates.ensure(folder, names)
        if options["rotate_ca"]:
            certificates.rotate(folder)
            self.stdout.write(
                "A new authority is in the bundle. Agents pass it on to their webhooks, and it is used when they have."
                " Apply the manifest again where no agent runs."
            )
        if options["use_new_ca"]:
            if not certificates.use_new_authority(folder, names):
                raise CommandError("There is no new authority. Make one first: --rotate-ca")
            is_new = True
        if is_new:
            is_served = certificates.reload_server(folder)
            self.stdout.write("The new certificate is served." if is_served else "The admission server does not run.")
        found = certificates.state(folder)
        if found is None:
            raise CommandError("The certificate cannot be read.")
        self.stdout.write(f"Valid until {found.not_after:%Y-%m-%d} for {', '.join(found.names)}.")
        self.stdout.write(f"Bundle: sha256 {found.bundle_sha256}.")
        for row in lagging_clusters(folder):
            self.stdout.write(f"{row.slug}: {row.why}{'' if row.is_awaited else ' Not awaited: it only observes.'}")
        if found.is_rotating:
            reason = why_not_use_new_authority(folder)
            self.stdout.write(f"The new authority waits: {reason or 'it is used within 15 seconds.'}")
