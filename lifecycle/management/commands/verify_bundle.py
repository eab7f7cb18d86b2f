"""`manage.py verify_bundle`: verify a sigstore bundle offline, in the form of sigstore's conformance protocol."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from lifecycle.core.types import Digest
from lifecycle.signatures.bundles import parse_bundle, verify_with_key
from lifecycle.signatures.keyless import verify_keyless
from lifecycle.signatures.keys import load_public_key
from lifecycle.signatures.roots import TrustedRoot, parse_trusted_root, shipped_root
from lifecycle.signatures.types import Artifact, IdentityRule, SignatureRefused, Verified

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Command(BaseCommand):
    """Exit 0: verified. Exit 1: not verified, with the reason. It reads no database and makes no request."""

    help = "Verify a sigstore bundle offline, with a key or with a certificate identity."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--staging", action="store_true", help="Use the root of sigstore's staging instance.")
        parser.add_argument("--bundle", type=Path, required=True, metavar="FILE")
        parser.add_argument("--certificate-identity", metavar="IDENTITY", help="E-mail address or URI, exactly.")
        parser.add_argument("--certificate-oidc-issuer", metavar="URL", help="Issuer of the identity, exactly.")
        parser.add_argument("--key", type=Path, metavar="FILE", help="Public key in PEM form.")
        parser.add_argument("--trusted-root", type=Path, metavar="FILE", help="Default: the root that ships with us.")
        parser.add_argument("artifact", metavar="FILE_OR_DIGEST")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            verified = _verify(options)
        except SignatureRefused as error:
            raise CommandError(f"Not verified: {error.message}") from error
        except OSError as error:
            raise CommandError(f"Not verified: {error.strerror}: {error.filename}") from error
        when = f" at {verified.signed_at:%Y-%m-%d %H:%M:%S} UTC" if verified.signed_at else ""
        self.stdout.write(f"Verified: signed by {verified.signer}{when}")


def _verify(options: dict[str, Any]) -> Verified:
    identity, issuer = options["certificate_identity"], options["certificate_oidc_issuer"]
    if (options["key"] is None) == (not identity or not issuer):
        raise SignatureRefused("Use either --key, or --certificate-identity with --certificate-oidc-issuer.")
    root = _root(options)
    artifact = _artifact(options["artifact"])
    bundle = parse_bundle(options["bundle"].read_bytes())
    if options["key"] is not None:
        is_given = options["trusted_root"] is not None
        return verify_with_key(
            bundle, load_public_key(options["key"].read_bytes()), artifact, root if is_given else None
        )
    verified = verify_keyless(bundle, root, artifact)
    if not IdentityRule(issuer, identity).matches(verified.signer):
        raise SignatureRefused(f"The signer is {verified.signer}.")
    return verified


def _root(options: dict[str, Any]) -> TrustedRoot:
    if options["trusted_root"] is not None:
        return parse_trusted_root(options["trusted_root"].read_text(errors="replace"))
    return shipped_root(is_staging=options["staging"])


def _artifact(text: str) -> Artifact:
    path = Path(text)
    if _DIGEST.fullmatch(text) and not path.exists():
        return Artifact.of_digest(Digest.parse(text))
    return Artifact.of_file(path)
