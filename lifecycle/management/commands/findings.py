"""`manage.py findings (--image DIGEST | --purl PURL | --purls FILE) --json`: print findings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.queries import system_user
from lifecycle.core.errors import MalformedPurl
from lifecycle.evidence.findings import Finding, findings_of_image, findings_of_purls, unscanned
from lifecycle.registry.models import Image
from lifecycle.versions.coordinates import Coordinates, coordinates

UNKNOWN_DIGEST = 1
MALFORMED_PURL = 2


class Command(BaseCommand):
    help = "Print the findings of an image or of packages. Exit codes: 1 unknown digest, 2 malformed purl."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--image", metavar="DIGEST", help="digest of an image or of an index (all platforms)")
        what.add_argument("--purl", metavar="PURL", help="one package URL")
        what.add_argument("--purls", metavar="FILE", help="file with one purl per line; - for standard input")
        parser.add_argument("--json", action="store_true", help="print one JSON object per line")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["image"] is not None:
            image = Image.objects.filter(digest=options["image"].strip()).first()
            if image is None:
                self.stderr.write(f"unknown digest: {options['image'][:150]}")
                sys.exit(UNKNOWN_DIGEST)
            self._print(findings_of_image(image, each_record=True, reader=system_user()), as_json=options["json"])
            for digest, reason in unscanned(image):  # an image without findings may just not be scanned
                self.stderr.write(f"{digest}: {reason}")
            return
        purls = [options["purl"]] if options["purl"] is not None else self._read(options["purls"])
        packages: list[tuple[str, Coordinates]] = []
        is_malformed = False
        for purl in dict.fromkeys(purls):
            try:
                packages.append((purl, coordinates(purl)))
            except MalformedPurl as error:
                self.stderr.write(f"{purl[:200]}: {error.message}")
                is_malformed = True
        self._print(findings_of_purls(packages, each_record=True), as_json=options["json"])
        if is_malformed:
            sys.exit(MALFORMED_PURL)

    def _read(self, name: str) -> list[str]:
        try:
            content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
            text = content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{name}: {error}") from None
        return [purl for line in text.split("\n") if (purl := line.strip())]

    def _print(self, findings: list[Finding], *, as_json: bool) -> None:
        for finding in findings:
            if as_json:
                self.stdout.write(orjson.dumps(finding.as_json()).decode())
            else:
                fix = f"fixed in {finding.fixed_version}" if finding.fixed_version else finding.reason or "no fix"
                self.stdout.write(f"{finding.severity:<9}{finding.advisory or '-':<28}{finding.purl}  {fix}")
