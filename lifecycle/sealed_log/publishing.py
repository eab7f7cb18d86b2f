"""The files of the log, and the heads that they show: a folder for each log, as https://c2sp.org/tlog-tiles has it.

They are a copy of what the database has, written after each commit: tiles first, the checkpoint last. A killed sealer
writes again what was not complete. Any web server can serve a folder, and Tessera's `fsck` can check it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lifecycle.sealed_log.models import LogCheckpoint, LogOrigin
from lifecycle.sealed_log.queries import tile_content
from lifecycle.sealed_log.sealer import LogBroken, Step
from lifecycle.sealed_log.types import Seen
from lifecycle.tlog.notes import Checkpoint, NoteRefused, VerifierKey
from lifecycle.tlog.tiles import names_between
from lifecycle.tlog.tree import TILE_WIDTH

CHECKPOINT: Final = "checkpoint"


def published(folder: Path, origin_number: int) -> Checkpoint | None:
    """Return the head that the files of a log show; None when there is none that can be read."""
    try:
        note = (folder / str(origin_number) / CHECKPOINT).read_text(encoding="utf-8")
        return Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
    except (OSError, NoteRefused, UnicodeDecodeError):
        return None


def seen_in(folder: Path, key: Ed25519PublicKey) -> list[Seen]:
    """Return the heads that the files of all logs show, of those that `key` signed."""
    if not folder.is_dir():
        return []
    notes = [entry / CHECKPOINT for entry in sorted(folder.iterdir()) if entry.name.isdecimal()]
    found = [seen_of(path.read_text(encoding="utf-8"), key, str(path)) for path in notes if path.is_file()]
    return [head for head in found if head is not None]


def seen_of(note: str, key: Ed25519PublicKey, place: str) -> Seen | None:
    """Return the head in a note that was found in `place`; None when `key` did not sign it."""
    try:
        head = Checkpoint.parse(VerifierKey(note.partition("\n")[0], key).text_of(note))
    except NoteRefused:
        return None
    return Seen(head.origin, head.size, head.root, place)


def publish(folder: Path, origin: LogOrigin, checkpoint: LogCheckpoint, *, step: Step = lambda name: None) -> int:
    """Write what is new since the last time, and then the checkpoint; return the number of tiles written.

    Raises LogBroken when the database lacks a tile, and OSError.
    """
    place = folder / str(origin.number)
    before = published(folder, origin.number)
    old = before.size if before is not None and before.origin == origin.name else 0
    if old >= checkpoint.size:
        return 0
    written = 0
    folders: set[Path] = set()
    for name in names_between(old, checkpoint.size):
        content = tile_content(origin, name, checkpoint.size)
        if content is None:
            raise LogBroken(f"The database lacks tile {name} of {origin}.")
        path = place / "tile" / str(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.width == TILE_WIDTH:  # narrower versions of it are no longer needed
            shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)
        _write(path, content)
        folders.add(path.parent)
        written += 1
        step("tile")
    for parent in folders:
        _sync(parent)
    step("all_tiles")
    _write(place / CHECKPOINT, checkpoint.note.encode())
    _sync(place)
    _forget_narrow(place, checkpoint.size)
    step("published")
    return written


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.part")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _forget_narrow(place: Path, size: int) -> None:
    """Remove versions of the last tiles that are narrower than what the checkpoint needs."""
    for name in names_between(size - 1, size):
        path = place / "tile" / str(name)
        if name.width < TILE_WIDTH:
            for other in path.parent.iterdir():
                if other.name != path.name:
                    other.unlink()
