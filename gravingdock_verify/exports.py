"""An export: a zip file with `export.json`, `entries.jsonl`, `consistency.jsonl`, and for a whole log its tiles."""

from __future__ import annotations

import base64
import binascii
import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

FORMAT = "gravingdock-audit-export/1"
LINE_MAX_BYTES = 64 * 1024 * 1024


class BadExport(ValueError):
    """The file is not an export that this program reads."""


@dataclass(frozen=True)
class Line:
    """One entry of an export."""

    origin: int
    index: int
    entry: bytes
    proof: list[bytes]
    event: dict[str, Any] | None  # the row in the database; None when there is none
    salts: bytes


class Export:
    """An opened export."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
            self.about: dict[str, Any] = json.loads(self._zip.read("export.json"))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise BadExport(f"{path} is not an export of the audit log: {error}") from None
        if self.about.get("format") != FORMAT:
            raise BadExport(f"{path} has the format {self.about.get('format')!r}. This program reads {FORMAT}.")
        try:  # what the export says about itself; nothing of it is signed
            self.spans = {int(number): (int(a), int(b)) for number, (a, b) in self.about.get("range", {}).items()}
            given = self.about.get("filter", {})
            self.days = (str(given.get("since", "")), str(given.get("until", "")))
        except (TypeError, ValueError, AttributeError) as error:
            raise BadExport(f"export.json cannot be read: {error!r}") from None

    def lines(self) -> Iterator[Line]:
        """Yield the entries in the order of the file; raises BadExport."""
        for number, value in enumerate(self._json_lines("entries.jsonl"), start=1):
            try:
                yield Line(
                    int(value["origin"]),
                    int(value["index"]),
                    value["entry"].encode(),
                    _hashes(value["proof"]),
                    value["event"],
                    bytes.fromhex(value["salts"]),
                )
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise BadExport(f"Line {number} of entries.jsonl cannot be read: {error!r}") from None

    def consistency(self) -> dict[tuple[int, int], list[bytes]]:
        """Return {(log, older size): proof}."""
        try:
            rows = self._json_lines("consistency.jsonl")
            return {(int(row["origin"]), int(row["size"])): _hashes(row["proof"]) for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise BadExport(f"consistency.jsonl cannot be read: {error!r}") from None

    def has_tiles(self, origin: int) -> bool:
        """Return whether the whole log is in the export."""
        return f"log/{origin}/checkpoint" in self._zip.namelist()

    def tile(self, origin: int, level: str, number: int, width: int) -> bytes | None:
        """Return a tile, or with the level "entries" a bundle; None when it is missing."""
        text, rest = f"{number % 1000:03d}", number // 1000
        while rest:
            text, rest = f"x{rest % 1000:03d}/{text}", rest // 1000
        suffix = "" if width == 256 else f".p/{width}"
        try:
            return self._zip.read(f"log/{origin}/tile/{level}/{text}{suffix}")
        except KeyError:
            return None

    def bundle(self, origin: int, number: int, width: int) -> list[bytes] | None:
        """Return the entries of a bundle; None when it is missing, or has another number of them."""
        content = self.tile(origin, "entries", number, width)
        if content is None:
            return None
        entries, place = [], 0
        while place + 2 <= len(content):
            (length,) = struct.unpack_from(">H", content, place)
            entries.append(content[place + 2 : place + 2 + length])
            place += 2 + length
        return entries if len(entries) == width and place == len(content) else None

    def _json_lines(self, name: str) -> Iterator[dict[str, Any]]:
        try:
            stream: IO[bytes] = self._zip.open(name)
        except KeyError:
            raise BadExport(f"The export has no {name}.") from None
        with stream:
            while line := stream.readline(LINE_MAX_BYTES):
                yield json.loads(line)


def _hashes(values: list[str]) -> list[bytes]:
    try:
        return [base64.b64decode(value, validate=True) for value in values]
    except binascii.Error as error:
        raise ValueError(str(error)) from None
