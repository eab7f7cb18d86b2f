"""Sources of OSV records: a bulk export in a folder or at an HTTP(S) URL."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.parse import quote

import orjson

from lifecycle.advisories.limits import Limits
from lifecycle.advisories.records import is_id, is_same_time
from lifecycle.core.errors import LimitExceeded, Malformed, UpstreamError
from lifecycle.core.http import HttpClient
from lifecycle.versions.ecosystems import EXPORT_DIRECTORIES

MIB: Final = 1024 * 1024
RECORD_MAX_BYTES: Final = 16 * MIB  # the largest real record is about 5 MB
INDEX_MAX_BYTES: Final = 256 * MIB
ARCHIVE_MAX_BYTES: Final = 4096 * MIB
ARCHIVE_MAX_ENTRIES: Final = 2_000_000
UNPACKED_MAX_BYTES: Final = 32 * 1024 * MIB  # per archive and run
SINGLE_FETCHES_MAX: Final = 200  # for more records, the whole archive is cheaper than single requests
_ARCHIVE, _INDEX, _LIST = "all.zip", "modified_id.csv", "ecosystems.txt"
_DOWNLOAD_DEADLINE_S: Final = 3600.0

Record = tuple[str, bytes | Malformed]  # id, and its content or error


class FeedUnreadable(UpstreamError):
    """The folder or URL has no OSV export, or it cannot be read."""

    code = "feed_unreadable"


class Source(Protocol):
    """An OSV export. `directory` is an ecosystem's folder, or "" for an export without folders."""

    def directories(self) -> list[str]:
        """Return the ecosystem folders. Raises FeedUnreadable when there is no export."""

    def index(self, directory: str) -> dict[str, str]:
        """Return {id: modified} of all records in `directory`. Raises FeedUnreadable."""

    def records(self, directory: str, wanted: Mapping[str, str]) -> Iterator[Record]:
        """Yield the id and content of each record in `wanted` ({id: modified} from the index), in any order."""


def open_source(location: str, *, limits: Limits | None = None) -> Source:
    """Return the export at `location`, a folder or an HTTP(S) URL. Raises FeedUnreadable."""
    if location.startswith(("http://", "https://")):
        return HttpSource(location, limits=limits)
    folder = Path(location)
    if not folder.is_dir():
        raise FeedUnreadable(f"{location} is not a folder or an http(s) URL.")
    return FolderSource(folder, limits=limits)


def parse_index(content: bytes, directory: str) -> dict[str, str]:
    """Return {id: modified} from a `modified_id.csv`. For duplicate ids, the latest time wins.

    The top-level index contains `<folder>/<id>`. Invalid ids are kept and reported when they are fetched.
    Raises FeedUnreadable.
    """
    index: dict[str, str] = {}
    try:
        for row in csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"))):
            if len(row) < 2 or not (name := row[1].strip()):
                continue
            modified, (folder, _, last) = row[0].strip(), name.rpartition("/")
            osv_id = last if is_id(last) and folder in ({directory} if directory else _plain(folder)) else name[:200]
            if osv_id not in index or modified > index[osv_id]:
                index[osv_id] = modified
    except csv.Error as error:
        raise FeedUnreadable(f"{_INDEX} cannot be read: {error}") from None
    return index


def _plain(folder: str) -> set[str]:
    return {folder} if "/" not in folder and folder not in {".", ".."} else set()


def _invalid_id(name: str) -> Malformed:
    return Malformed(f"{name[:100]!r} in the index is not a valid record id")


def _missing(osv_id: str) -> Malformed:
    return Malformed(f"{osv_id} is in the index, but its record is missing")


class Archive:
    """An `all.zip`, read record by record. Limits apply to actual sizes, not to the sizes in its headers."""

    def __init__(self, file: Path | IO[bytes]) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise FeedUnreadable(f"{_ARCHIVE} cannot be read: {error}") from None
        members = self._zip.infolist()
        if len(members) > ARCHIVE_MAX_ENTRIES:
            raise LimitExceeded(f"{_ARCHIVE} has more than {ARCHIVE_MAX_ENTRIES} entries.")
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            name = member.filename.rpartition("/")[2]
            if name.endswith(".json") and is_id(name[:-5]):
                self._members[name[:-5]] = member
        self._left = UNPACKED_MAX_BYTES

    def ids(self) -> list[str]:
        """Return the ids of its records, from their file names."""
        return list(self._members)

    def refuse_records(self) -> None:
        """Raise FeedUnreadable when there are records, because then the index without records was truncated."""
        if self._members:
            raise FeedUnreadable(f"{_INDEX} has no records, but {_ARCHIVE} has {len(self._members)}.")

    def read(self, osv_id: str) -> bytes:
        """Return the bytes of one record. Raises KeyError when it is absent, Malformed when it cannot be read."""
        member = self._members[osv_id]
        try:
            with self._zip.open(member) as stream:
                content = stream.read(RECORD_MAX_BYTES + 1)
        except Exception as error:  # noqa: BLE001 -- zipfile passes on errors of zlib, bz2, lzma and the cipher
            raise Malformed(f"{osv_id}: cannot be unpacked: {error}") from None
        if len(content) > RECORD_MAX_BYTES:
            raise LimitExceeded(f"{osv_id}: longer than {RECORD_MAX_BYTES} bytes.")
        self._left -= len(content)
        if self._left < 0:
            raise LimitExceeded(f"{_ARCHIVE} unpacks to more than {UNPACKED_MAX_BYTES} bytes.")
        return content


def modified_of(content: bytes) -> str:
    """Return the `modified` time of a record as text; "" when it cannot be read."""
    try:
        record = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ""
    modified = record.get("modified") if isinstance(record, dict) else None
    return modified if isinstance(modified, str) else ""


def _read_file(path: Path) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(RECORD_MAX_BYTES + 1)
    if len(content) > RECORD_MAX_BYTES:
        raise LimitExceeded(f"{path.stem}: longer than {RECORD_MAX_BYTES} bytes.")
    return content


class FolderSource:
    """An export in a folder: with ecosystem folders, or with the content of one ecosystem, or with plain JSON files."""

    def __init__(self, folder: Path, *, limits: Limits | None = None) -> None:
        self._folder = folder
        self._limits = limits or Limits.default()
        self._archives: dict[str, Archive | None] = {}

    def directories(self) -> list[str]:
        # Folders first: an export also has an index and an archive of all folders at the top level.
        folders = sorted(path.name for path in self._folder.iterdir() if path.is_dir() and self._has_records(path))
        if folders:
            return folders
        if not self._has_records(self._folder):
            raise FeedUnreadable(f"{self._folder} has no OSV export: no {_ARCHIVE}, {_INDEX} or JSON file.")
        return [""]

    @staticmethod
    def _has_records(path: Path) -> bool:
        return any((path / name).is_file() for name in (_ARCHIVE, _INDEX)) or any(path.glob("*.json"))

    def _archive(self, directory: str) -> Archive | None:
        if directory not in self._archives:
            path = self._folder / directory / _ARCHIVE
            if path.is_file():
                self._limits.check_size(path.stat().st_size, _ARCHIVE)
            self._archives[directory] = Archive(path) if path.is_file() else None
        return self._archives[directory]

    def index(self, directory: str) -> dict[str, str]:
        path = self._folder / directory / _INDEX
        try:
            if path.is_file():
                index = parse_index(path.read_bytes(), directory)
                if not index and (archive := self._archive(directory)) is not None:
                    archive.refuse_records()
                return index
            archive = self._archive(directory)
            ids = {item.stem for item in (self._folder / directory).glob("*.json") if is_id(item.stem)}
            ids.update(archive.ids() if archive else ())
        except OSError as error:
            raise FeedUnreadable(f"{directory or self._folder}: {error}") from None
        return {
            osv_id: "" if isinstance(content, Malformed) else modified_of(content)
            for osv_id, content in self.records(directory, dict.fromkeys(ids, ""))
        }

    def records(self, directory: str, wanted: Mapping[str, str]) -> Iterator[Record]:
        for osv_id, modified in wanted.items():
            yield osv_id, self._read(directory, osv_id, modified) if is_id(osv_id) else _invalid_id(osv_id)

    def _read(self, directory: str, osv_id: str, modified: str) -> bytes | Malformed:
        """Return the record from its file or from the archive: the one with the index's time, else the file."""
        file = self._file(directory, osv_id)
        if isinstance(file, bytes) and is_same_time(modified_of(file), modified):
            return file
        archived = self._archived(directory, osv_id)
        if file is None:
            return _missing(osv_id) if archived is None else archived
        is_indexed = isinstance(archived, bytes) and is_same_time(modified_of(archived), modified)
        return archived if is_indexed and archived is not None else file

    def _file(self, directory: str, osv_id: str) -> bytes | Malformed | None:
        path = self._folder / directory / f"{osv_id}.json"
        try:
            return _read_file(path) if path.is_file() else None
        except OSError as error:
            return Malformed(f"{osv_id}: {error.strerror}")
        except Malformed as error:
            return error

    def _archived(self, directory: str, osv_id: str) -> bytes | Malformed | None:
        archive = self._archive(directory)
        try:
            return None if archive is None else archive.read(osv_id)
        except KeyError:
            return None
        except Malformed as error:
            return error


class HttpSource:
    """An export at a URL. A few records are fetched one by one, many as the archive."""

    def __init__(self, address: str, *, client: HttpClient | None = None, limits: Limits | None = None) -> None:
        self._address = address.rstrip("/")
        self._limits = limits or Limits.default()
        self._client = client or HttpClient()

    def _url(self, directory: str, name: str) -> str:
        parts = [quote(part, safe="") for part in (directory, name) if part]
        return "/".join((self._address, *parts))

    def _get(self, directory: str, name: str, max_bytes: int) -> bytes | None:
        """Return the content of a file, None when it is absent. Raises UpstreamError, LimitExceeded."""
        answer = self._client.request(
            "GET",
            self._url(directory, name),
            max_bytes=min(max_bytes, self._limits.max_bytes),
            deadline_s=self._limits.seconds(_DOWNLOAD_DEADLINE_S),
            redirects=3,
        )
        return answer.body if self._exists(answer.status, directory, name) else None

    def _exists(self, status: int, directory: str, name: str) -> bool:
        if status in {403, 404, 410}:  # a bucket without list permission answers 403 for absent files
            return False
        if status != 200:
            raise FeedUnreadable(f"{self._url(directory, name)} answered {status}.")
        return True

    def _has(self, directory: str, name: str) -> bool:
        """Return whether a file exists, without reading its content."""
        with self._client.stream(
            "GET",
            self._url(directory, name),
            max_bytes=MIB,
            deadline_s=self._limits.seconds(_DOWNLOAD_DEADLINE_S),
            redirects=3,
        ) as answer:
            return self._exists(answer.status, directory, name)

    def directories(self) -> list[str]:
        listed = self._get("", _LIST, MIB)
        if listed is not None:
            # The list also has releases ("Debian:12"), which have no folder of their own.
            names = {name.strip().partition(":")[0] for name in listed.decode("utf-8", "replace").split("\n")}
            return sorted(name for name in names - {"", "[EMPTY]", ".", ".."} if "/" not in name)
        folders = [name for name in EXPORT_DIRECTORIES if self._has(name, _INDEX) or self._has(name, _ARCHIVE)]
        if not folders and (self._has("", _INDEX) or self._has("", _ARCHIVE)):
            folders = [""]
        if not folders:
            raise FeedUnreadable(f"{self._address} has no OSV export: no {_LIST}, {_INDEX} or {_ARCHIVE}.")
        return folders

    def index(self, directory: str) -> dict[str, str]:
        content = self._get(directory, _INDEX, INDEX_MAX_BYTES)
        index = {} if content is None else parse_index(content, directory)
        if index:
            return index
        with self._downloaded(directory) as file:
            if file is None and content is None:
                raise FeedUnreadable(f"{self._url(directory, _INDEX)} not found.")
            if file is None:
                return {}
            archive = Archive(file)
            if content is not None:
                archive.refuse_records()
            return {osv_id: _archived_modified(archive, osv_id) for osv_id in archive.ids()}

    def records(self, directory: str, wanted: Mapping[str, str]) -> Iterator[Record]:
        missing = dict(wanted)
        if len(wanted) <= SINGLE_FETCHES_MAX and self._has(directory, _INDEX):
            for osv_id in wanted:
                content = self._single(directory, osv_id)
                if content is not None:
                    del missing[osv_id]
                    yield osv_id, content
        if not missing:
            return
        with self._downloaded(directory) as file:  # also for a mirror without single files
            archive = None if file is None else Archive(file)
            for osv_id, modified in missing.items():
                yield osv_id, self._archived(directory, archive, osv_id, modified)

    def _archived(self, directory: str, archive: Archive | None, osv_id: str, modified: str) -> bytes | Malformed:
        """Return a record from the archive, or its single file when the archive lacks it or has another time for it."""
        try:
            content = None if archive is None else archive.read(osv_id)
        except KeyError:
            content = None
        except Malformed as error:
            return error
        if content is not None and is_same_time(modified_of(content), modified):
            return content
        single = self._single(directory, osv_id)
        if content is not None and (single is None or isinstance(single, Malformed)):
            return content
        return _missing(osv_id) if single is None else single

    def _single(self, directory: str, osv_id: str) -> bytes | Malformed | None:
        if not is_id(osv_id):
            return _invalid_id(osv_id)
        try:
            return self._get(directory, f"{osv_id}.json", RECORD_MAX_BYTES)
        except (Malformed, UpstreamError) as error:
            return Malformed(f"{osv_id}: {error.message}")

    @contextmanager
    def _downloaded(self, directory: str) -> Iterator[IO[bytes] | None]:
        """Yield the archive as a temporary file; None when there is no archive."""
        with tempfile.TemporaryFile() as file:
            with self._client.stream(
                "GET",
                self._url(directory, _ARCHIVE),
                max_bytes=min(ARCHIVE_MAX_BYTES, self._limits.max_bytes),
                deadline_s=self._limits.seconds(_DOWNLOAD_DEADLINE_S),
                redirects=3,
            ) as answer:
                exists = self._exists(answer.status, directory, _ARCHIVE)
                if exists:
                    for chunk in answer.chunks():
                        file.write(chunk)
            file.seek(0)
            yield file if exists else None


def _archived_modified(archive: Archive, osv_id: str) -> str:
    try:
        return modified_of(archive.read(osv_id))
    except Malformed:
        return ""
