"""CVE records as a source of severities: those of the CVE program (cvelistV5, vulnrichment) and of NVD.

They name products, not packages, so they match nothing. Records that name their CVE id take their severity from them.
"""

from __future__ import annotations

import gzip
import io
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import orjson

from lifecycle.advisories.exploit_records import as_osv
from lifecycle.advisories.limits import Limits
from lifecycle.advisories.sources import (
    ARCHIVE_MAX_BYTES,
    ARCHIVE_MAX_ENTRIES,
    MIB,
    UNPACKED_MAX_BYTES,
    FeedUnreadable,
    Record,
)
from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.core.http import HttpClient

NVD_MAX_BYTES: Final = 1024 * MIB  # a year of NVD has about 200 MB unpacked
_DOWNLOAD_DEADLINE_S: Final = 3600.0
_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"


class CveSource:
    """CVE records in a folder with any folders in it, in a zip file, or in one (packed) file of NVD."""

    def __init__(self, location: str, limits: Limits) -> None:
        self._location = location
        self._limits = limits
        self._readers: dict[str, Callable[[], bytes]] = {}  # id -> the record as OSV
        self._unpacked = 0
        self._file: IO[bytes] | None = None
        self._archive: zipfile.ZipFile | None = None

    @classmethod
    @contextmanager
    def open(cls, location: str, *, limits: Limits | None = None) -> Iterator[CveSource]:
        """Open the records at `location`, a path or an http(s) URL. Raises FeedUnreadable, UpstreamError."""
        source = cls(location, limits or Limits.default())
        try:
            yield source
        finally:
            if source._archive is not None:
                source._archive.close()
            if source._file is not None:
                source._file.close()

    def directories(self) -> list[str]:
        return [""]

    def index(self, directory: str) -> dict[str, str]:
        """Return {id: modified} of all records. Raises FeedUnreadable when one cannot be read: then nothing changes."""
        del directory
        index: dict[str, str] = {}
        for name, read in self._members():
            self._limits.check_time()
            found = list(_as_records(read(), name))
            for osv in found:
                if osv["modified"] >= index.get(osv["id"], ""):
                    index[osv["id"]] = osv["modified"]
                    self._remember(osv, read, name, is_alone=len(found) == 1)
        if not index:
            raise FeedUnreadable(f"{self._location} has no CVE records.")
        return index

    def _remember(self, osv: dict[str, Any], read: Callable[[], bytes], name: str, *, is_alone: bool) -> None:
        """Read the file again when it is wanted, or keep a record of a file that has many."""
        if is_alone:
            cve = osv["id"]
            self._readers[cve] = lambda: next(
                orjson.dumps(each) for each in _as_records(read(), name) if each["id"] == cve
            )
        else:
            packed = zlib.compress(orjson.dumps(osv), 1)
            self._readers[osv["id"]] = lambda: zlib.decompress(packed)

    def records(self, directory: str, wanted: Mapping[str, str]) -> Iterator[Record]:
        del directory
        self._unpacked = 0
        for osv_id in wanted:
            try:
                yield osv_id, self._readers[osv_id]()
            except (FeedUnreadable, OSError, StopIteration) as error:
                yield osv_id, Malformed(f"{osv_id}: {error}")

    def _members(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield the name of each file, and what reads it."""
        if self._location.startswith(("http://", "https://")):
            yield from self._of_file(_downloaded(self._location, self._limits), self._location)
            return
        path = Path(self._location)
        if path.is_dir():
            files = sorted(each for end in ("*.json", "*.json.gz") for each in path.rglob(end))
            for each in files:
                yield str(each.relative_to(path)), partial(self._opened, each)
        elif path.is_file():
            self._limits.check_size(path.stat().st_size, path.name)
            yield from self._of_file(_open(path), path.name)
        else:
            raise FeedUnreadable(f"{self._location} is not a file, a folder or an http(s) URL.")

    def _of_file(self, file: IO[bytes], name: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
        self._file = file
        is_zip = file.read(4) == _ZIP
        file.seek(0)
        if not is_zip:
            content = self._read(file, name, is_closed=False)
            yield name, lambda: content
            return
        try:
            archive = self._archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise FeedUnreadable(f"{name} cannot be read: {error}") from None
        members = [member for member in archive.infolist() if member.filename.endswith((".json", ".json.gz"))]
        if len(members) > ARCHIVE_MAX_ENTRIES:
            raise LimitExceeded(f"{name} has more than {ARCHIVE_MAX_ENTRIES} entries.")
        for member in members:
            yield member.filename, partial(self._unzipped, archive, member)

    def _opened(self, path: Path) -> bytes:
        return self._read(_open(path), path.name)

    def _unzipped(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
        try:
            return self._read(archive.open(member), member.filename)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
            raise FeedUnreadable(f"{member.filename} cannot be unpacked: {error}") from None

    def _read(self, stream: IO[bytes], name: str, *, is_closed: bool = True) -> bytes:
        most = min(NVD_MAX_BYTES, self._limits.max_bytes)
        try:
            content = stream.read(most + 1)
            if content.startswith(_GZIP):
                with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
                    content = unpacked.read(most + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise FeedUnreadable(f"{name} cannot be read: {error}") from None
        finally:
            if is_closed:
                stream.close()
        self._unpacked += len(content)
        if len(content) > most or self._unpacked > min(UNPACKED_MAX_BYTES, self._limits.max_bytes):
            raise LimitExceeded(f"{name} unpacks to too many bytes. If the feed is right, allow it more MiB.")
        return content


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise FeedUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from None


def _downloaded(location: str, limits: Limits) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- the caller closes it
    client = HttpClient()
    try:
        with client.stream(
            "GET",
            location,
            max_bytes=min(ARCHIVE_MAX_BYTES, limits.max_bytes),
            deadline_s=limits.seconds(_DOWNLOAD_DEADLINE_S),
            redirects=3,
        ) as answer:
            if answer.status != 200:
                raise FeedUnreadable(f"{location} answered {answer.status}.")
            for chunk in answer.chunks():
                file.write(chunk)
    except BaseException:
        file.close()
        raise
    finally:
        client.close()
    file.seek(0)
    return file


def _as_records(content: bytes, name: str) -> Iterator[dict[str, Any]]:
    """Yield the CVE records of a file as OSV; none for another document, such as the list of changes beside them."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise FeedUnreadable(f"{name} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(document, dict):
        return
    listed = document.get("vulnerabilities")  # NVD
    parts = [part.get("cve") for part in listed if isinstance(part, dict)] if isinstance(listed, list) else [document]
    for item in parts:
        osv = as_osv(item) if isinstance(item, dict) else None
        if osv is not None:
            yield osv
