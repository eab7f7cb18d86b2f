"""Anchors: checkpoints are copied to places that a thief of the database does not have.

Without one, somebody with the key and the database can sign another history, and an older checkpoint hides a cut tail.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email

from lifecycle.core.errors import LifecycleError, Malformed, RegistryRefused
from lifecycle.core.http import Unreachable, assert_outside_transaction, resolve_destination
from lifecycle.core.types import Digest
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.oci.constants import MediaType
from lifecycle.registry.clients import client_for
from lifecycle.registry.constants import ANCHOR_PREFIX
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.sealed_log.constants import CHECKPOINT_TYPE
from lifecycle.sealed_log.models import Anchor, LogCheckpoint
from lifecycle.sealed_log.publishing import seen_of
from lifecycle.sealed_log.types import Seen
from lifecycle.tlog.notes import NOTE_MAX_BYTES

REPOSITORY: Final = f"{ANCHOR_PREFIX}/checkpoints"
_EMPTY: Final = b"{}"
_FOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILE: Final = re.compile(r"checkpoint-[0-9]{6}-[0-9]{15}")
_ESCAPED: Final = re.compile(r"(?=[\\\"\]])")  # RFC 5424, 6.3.3
_BACKSLASH: Final = r"\\"
_SYSLOG_TIMEOUT_S: Final = 10
_PRIORITY: Final = 13 * 8 + 5  # RFC 5424: log audit, notice
_ENTERPRISE: Final = "32473"  # RFC 5612: for examples and documentation, since we have no number of our own


def checked_target(kind: str, target: str) -> str:
    """Return the target of an anchor as it is stored; raises Malformed with what to enter."""
    if kind == Anchor.Kind.OCI:
        return REPOSITORY
    if kind == Anchor.Kind.FOLDER:
        if not settings.ANCHOR_FOLDER:
            raise Malformed("No folder is allowed yet. Ask the operator to set ANCHOR_FOLDER.", field="target")
        if not _FOLDER.fullmatch(target):
            raise Malformed("Enter the name of a folder below ANCHOR_FOLDER, such as auditors.", field="target")
        return target
    if kind == Anchor.Kind.SYSLOG:
        _syslog_place(target)
        return target
    try:
        validate_email(target)
    except ValidationError:
        raise Malformed("Enter a mail address.", field="target") from None
    return target


def anchor(row: Anchor, checkpoint: LogCheckpoint) -> None:
    """Copy a checkpoint to an anchor. Doing it twice changes nothing but another mail or line.

    Raises RegistryUnavailable, RegistryRefused, Malformed, Unreachable, or OSError.
    """
    assert_outside_transaction()
    _WAYS[row.kind](row, checkpoint)


def seen_elsewhere(key: Ed25519PublicKey) -> tuple[list[Seen], list[str]]:
    """Return the heads that anchors have which can be read (registry and folders), and what is wrong with the others.

    Each anchor is read on its own. One that shows nothing, but has got a checkpoint, counts as not read: its disk may
    not be mounted.
    """
    found, problems = [], []
    for row in Anchor.objects.filter(kind__in=(Anchor.Kind.OCI, Anchor.Kind.FOLDER)).order_by("pk"):
        try:
            note = _newest_in_registry() if row.kind == Anchor.Kind.OCI else _newest_in_folder(row)
        except (LifecycleError, OSError, UnicodeDecodeError) as error:
            problems.append(f"{row.name}: {error}"[:200])
            continue
        if note is None and row.size:
            problems.append(f"{row.name}: it got a checkpoint of {row.size} entries, and shows none")
        elif note is not None and (head := seen_of(note, key, f"anchor {row.name}")) is not None:
            found.append(head)
    return found, problems


def _to_registry(row: Anchor, checkpoint: LogCheckpoint) -> None:
    """Push an artifact with the checkpoint. The token for it allows pull and push, not delete."""
    client = _client()
    note = checkpoint.note.encode()
    for blob in (note, _EMPTY):
        client.upload_blob(REPOSITORY, Digest.of(blob), blob)
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST.value,
        "artifactType": CHECKPOINT_TYPE,
        "config": {"mediaType": MediaType.EMPTY.value, "digest": Digest.of(_EMPTY).text, "size": len(_EMPTY)},
        "layers": [{"mediaType": CHECKPOINT_TYPE, "digest": Digest.of(note).text, "size": len(note)}],
    }
    manifest = json.dumps(document, separators=(",", ":")).encode()
    for tag in (f"{checkpoint.origin.number}-{checkpoint.size}", "latest"):
        client.put_manifest(REPOSITORY, tag, manifest, MediaType.OCI_MANIFEST)


def _newest_in_registry() -> str | None:
    client = _client()
    try:
        document = json.loads(client.get_manifest(REPOSITORY, "latest").content)
        layer = Digest.parse(document["layers"][0]["digest"])
        return client.get_blob(REPOSITORY, layer, max_bytes=NOTE_MAX_BYTES).decode()
    except ManifestUnknown:
        return None
    except (KeyError, IndexError, TypeError, ValueError, Malformed, RegistryRefused):
        return None  # not ours: nothing that our key signed


def _client() -> RegistryClient:
    return client_for(ensure_managed_registry())  # nobody may have pushed yet


def _to_folder(row: Anchor, checkpoint: LogCheckpoint) -> None:
    folder = _folder(row)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"checkpoint-{checkpoint.origin.number:06}-{checkpoint.size:015}"
    if path.exists():
        return
    draft = folder / f".{path.name}.part"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "w", encoding="utf-8") as stream:
        stream.write(checkpoint.note)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)


def _newest_in_folder(row: Anchor) -> str | None:
    folder = _folder(row)
    names = sorted(entry.name for entry in folder.iterdir() if _FILE.fullmatch(entry.name)) if folder.is_dir() else []
    return (folder / names[-1]).read_text(encoding="utf-8") if names else None


def _folder(row: Anchor) -> Path:
    if not settings.ANCHOR_FOLDER:
        raise Malformed("ANCHOR_FOLDER is not set any more.")
    return Path(settings.ANCHOR_FOLDER) / row.target


def _syslog_place(target: str) -> tuple[str, str, int]:
    """Return (udp or tcp, host, port)."""
    try:
        parts = urlsplit(target)
        port = parts.port
    except ValueError:
        port = None
    if not target.startswith(("udp://", "tcp://")) or port is None or not parts.hostname or parts.path.strip("/"):
        raise Malformed("Enter udp://host:514 or tcp://host:601.", field="target")
    return parts.scheme, parts.hostname, port


def _to_syslog(row: Anchor, checkpoint: LogCheckpoint) -> None:
    """Send one message of RFC 5424; over TCP with its length before it (RFC 6587, 3.4.1)."""
    scheme, host, port = _syslog_place(row.target)
    message = syslog_line(checkpoint)
    address = resolve_destination(host, port)
    try:
        if scheme == "udp":
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.sendto(message, (address, port))
        else:
            with socket.create_connection((address, port), timeout=_SYSLOG_TIMEOUT_S) as stream:
                stream.sendall(b"%d %b" % (len(message), message))
    except OSError as error:
        raise Unreachable(f"{host} did not take the message: {error.strerror or error}") from error


def syslog_line(checkpoint: LogCheckpoint) -> bytes:
    """Return the message: the lines of the note as structured data, in which a line cannot end."""
    text, _, signature = checkpoint.note.rpartition("\n\n")
    origin, size, root = text.split("\n")[:3]
    values = {"origin": origin, "size": size, "root": root, "signature": signature.rstrip("\n").rpartition(" ")[2]}
    data = " ".join(f'{name}="{_ESCAPED.sub(_BACKSLASH, value)}"' for name, value in values.items())
    host = urlsplit(settings.PUBLIC_URL).hostname or "-"
    at = checkpoint.at.isoformat(timespec="microseconds")
    return f"<{_PRIORITY}>1 {at} {host} gravingdock - checkpoint [checkpoint@{_ENTERPRISE} {data}]".encode()


def _to_mail(row: Anchor, checkpoint: LogCheckpoint) -> None:
    if not settings.MAIL_IS_ON:
        raise Malformed("No mail server is set. Ask the operator to set MAIL_URL.")
    text = (
        f"{checkpoint.note}\nKeep this mail. The text above is a signed checkpoint of the audit log of"
        f" {settings.PUBLIC_URL}: save it in a file, and check a later export against it with"
        " gravingdock-verify --older FILE.\n"
    )
    EmailMessage(f"Gravingdock: audit log of {checkpoint.size} entries", text, to=[row.target]).send()


_WAYS: Final[Mapping[str, Callable[[Anchor, LogCheckpoint], None]]] = {
    Anchor.Kind.OCI.value: _to_registry,
    Anchor.Kind.FOLDER.value: _to_folder,
    Anchor.Kind.SYSLOG.value: _to_syslog,
    Anchor.Kind.MAIL.value: _to_mail,
}
