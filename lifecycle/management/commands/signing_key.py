"""`manage.py signing_key create|list|retire`: the keys with which promoted images are signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from lifecycle.core.errors import LifecycleError
from lifecycle.trust import signing
from lifecycle.trust.models import SigningKey
from lifecycle.trust.signers import secret_of


class Command(BaseCommand):
    help = "Create, import, list or retire the keys with which promoted images are signed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", choices=("create", "list", "retire"))
        parser.add_argument("name", nargs="?", default="", help="name of the key")
        parser.add_argument("--actor", default="", metavar="NAME", help="admin account that does it")
        parser.add_argument(
            "--uri",
            default="",
            help="register the key at this place, where it stays: env:, file:PATH, hsm:ID?label=TOKEN, awskms:ID, "
            "gcpkms:ID, azurekms:ID or hashivault:NAME",
        )
        parser.add_argument(
            "--from",
            dest="file",
            metavar="FILE",
            help="import this private key (PEM or cosign's, ECDSA P-256); its password is in SIGNING_KEY_PASSWORD",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["what"] == "list":
            for row in SigningKey.objects.order_by("-created_at"):
                state = f"retired {row.retired_at:%Y-%m-%d}" if row.retired_at else "active"
                place = f" {row.uri}" if row.uri else ""
                self.stdout.write(f"{row.name} {row.fingerprint} {state}{place}\n{row.public_key}", ending="")
            return
        actor = User.objects.filter(username=options["actor"], is_active=True).first()
        if actor is None or not options["name"]:
            raise CommandError("Give the name of the key, and --actor with an active account.")
        try:
            if options["what"] == "retire":
                signing.retire_key(options["name"], actor=actor)
                self.stdout.write(f"{options['name']} retired")
                return
            row = _create(options["name"], options["uri"], options["file"], actor)
        except LifecycleError as error:
            raise CommandError(error.message) from error
        except OSError as error:
            raise CommandError(f"{options['file']}: {error.strerror}") from error
        self.stdout.write(row.public_key, ending="")


def _create(name: str, uri: str, file: str | None, actor: User) -> SigningKey:
    if uri and file:
        raise CommandError("Use either --uri or --from.")
    if uri:
        return signing.register_key(name, uri, actor=actor)
    pem = Path(file).read_bytes() if file else b""
    return signing.create_key(name, actor=actor, pem=pem, password=secret_of(name, "PASSWORD"))
