"""`manage.py verify_attestation`: verify a DSSE envelope with a key, its subject and its predicate type."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from lifecycle.signatures.dsse import check_statement, parse_envelope, verify_envelope
from lifecycle.signatures.keys import load_public_key
from lifecycle.signatures.types import SignatureRefused


class Command(BaseCommand):
    """Exit 0: verified. Exit 1: not verified, with the reason. It reads no database and makes no request."""

    help = "Verify a DSSE attestation with a public key, and that it is about the subject and of the predicate type."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--envelope", type=Path, required=True, metavar="FILE", help="JSON, or one per line.")
        parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="Public key in PEM form.")
        parser.add_argument("--subject", required=True, metavar="DIGEST", help="<algorithm>:<value>")
        parser.add_argument("--predicate-type", required=True, metavar="TYPE")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            key = load_public_key(options["key"].read_bytes())
            content = options["envelope"].read_bytes()
            reasons = []
            for envelope in _envelopes(content):
                try:
                    verified = verify_envelope(parse_envelope(envelope), key)
                    check_statement(verified.statement, options["subject"], options["predicate_type"])
                except SignatureRefused as error:
                    reasons.append(error.message)
                else:
                    self.stdout.write(f"Verified: signed by {verified.signer}")
                    return
        except SignatureRefused as error:
            raise CommandError(f"Not verified: {error.message}") from error
        except OSError as error:
            raise CommandError(f"Not verified: {error.strerror}: {error.filename}") from error
        raise CommandError(f"Not verified: {reasons[0] if reasons else 'The file has no envelope.'}")


def _envelopes(content: bytes) -> list[bytes]:
    """Return the envelopes of a file: one JSON document, or one in each line."""
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}") for line in lines):
        return lines
    return [content]
