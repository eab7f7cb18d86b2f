"""Advisory exports in folders and at URLs, complete and broken."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import httpx
import pytest

from lifecycle.advisories import sources
from lifecycle.advisories.sources import Archive, FeedUnreadable, FolderSource, HttpSource, parse_index
from lifecycle.core.errors import LimitExceeded, Malformed
from lifecycle.core.http import HttpClient

RECORD = b'{"id":"A-1","modified":"2026-01-01T00:00:00Z"}'
INDEX = b"2026-01-01T00:00:00Z,A-1\n"


def index_of(*ids: str, modified: str = "2026-01-01T00:00:00Z") -> dict[str, str]:
    """Return an index of these ids, all with the same time."""
    return dict.fromkeys(ids, modified)


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for name, content in members.items():
            zip_file.writestr(f"{name.replace('_', '-')}.json", content)
    return buffer.getvalue()


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def test_folder_is_read_by_index_from_archive(tmp_path):
    write(tmp_path / "PyPI", all__zip=archive(A_1=RECORD), modified_id__csv=INDEX)
    source = FolderSource(tmp_path)
    assert source.directories() == ["PyPI"]
    assert source.index("PyPI") == {"A-1": "2026-01-01T00:00:00Z"}
    assert list(source.records("PyPI", index_of("A-1"))) == [("A-1", RECORD)]


def test_missing_index_is_built_and_single_file_overrides_archive(tmp_path):
    newer = RECORD.replace(b"2026", b"2027")
    write(tmp_path / "PyPI", all__zip=archive(A_1=RECORD, A_2=RECORD))
    (tmp_path / "PyPI" / "A-1.json").write_bytes(newer)
    source = FolderSource(tmp_path)
    assert source.index("PyPI")["A-1"] == "2027-01-01T00:00:00Z"
    assert sorted(source.index("PyPI")) == ["A-1", "A-2"]


def test_copy_with_index_time_is_used_or_else_the_single_file(tmp_path):
    newer = RECORD.replace(b"2026", b"2027")
    write(tmp_path / "PyPI", all__zip=archive(A_1=newer))
    (tmp_path / "PyPI" / "A-1.json").write_bytes(RECORD)
    source = FolderSource(tmp_path)
    assert dict(source.records("PyPI", index_of("A-1", modified="2027-01-01T00:00:00Z"))) == {"A-1": newer}
    assert dict(source.records("PyPI", index_of("A-1"))) == {"A-1": RECORD}
    assert dict(source.records("PyPI", index_of("A-1", modified="2028-01-01T00:00:00Z"))) == {"A-1": RECORD}


def test_folder_with_only_record_files_is_an_export(tmp_path):
    (tmp_path / "A-1.json").write_bytes(RECORD)
    source = FolderSource(tmp_path)
    assert source.directories() == [""]
    assert source.index("") == {"A-1": "2026-01-01T00:00:00Z"}


def test_empty_folder_is_not_an_export(tmp_path):
    with pytest.raises(FeedUnreadable):
        FolderSource(tmp_path).directories()


def test_missing_record_is_reported_by_id(tmp_path):
    write(tmp_path / "PyPI", all__zip=archive(A_1=RECORD), modified_id__csv=INDEX + b"2026-01-01T00:00:00Z,A-9\n")
    found = dict(FolderSource(tmp_path).records("PyPI", index_of("A-1", "A-9")))
    assert found["A-1"] == RECORD
    assert isinstance(found["A-9"], Malformed)


def test_path_in_index_is_not_read(tmp_path):
    content = b"2026-01-01T00:00:00Z,../../etc/passwd\n2026-01-01T00:00:00Z,PyPI/A-1\n2025-01-01T00:00:00Z,A-1\nbad\n"
    found = parse_index(content, "PyPI")
    assert found == {"A-1": "2026-01-01T00:00:00Z", "../../etc/passwd": "2026-01-01T00:00:00Z"}
    (tmp_path / "x.json").write_bytes(RECORD)
    write(tmp_path / "PyPI", A_1=RECORD)
    (_, refused), (_, missing) = FolderSource(tmp_path).records("PyPI", index_of("../x", "A-1"))
    assert isinstance(refused, Malformed)
    assert "not a valid record id" in refused.message
    assert isinstance(missing, Malformed)


def test_index_that_is_not_csv_is_refused():
    with pytest.raises(FeedUnreadable):
        parse_index(b'2026-01-01T00:00:00Z,"' + b"x" * 200_000, "PyPI")


def test_flat_export_uses_top_index_and_full_export_its_folders(tmp_path):
    above = b"2026-01-01T00:00:00Z,PyPI/A-1\n"
    root = write(tmp_path / "flat", all__zip=archive(A_1=RECORD), modified_id__csv=above)
    flat = FolderSource(root)
    assert (flat.directories(), flat.index("")) == ([""], index_of("A-1"))
    assert dict(flat.records("", index_of("A-1"))) == {"A-1": RECORD}
    write(root / "PyPI", all__zip=archive(A_1=RECORD), modified_id__csv=INDEX)
    assert FolderSource(root).directories() == ["PyPI"]


def test_empty_index_in_folder_needs_empty_archive(tmp_path):
    write(tmp_path / "PyPI", all__zip=archive(A_1=RECORD), modified_id__csv=b"")
    with pytest.raises(FeedUnreadable, match="has 1"):
        FolderSource(tmp_path).index("PyPI")
    write(tmp_path / "Go", all__zip=archive(), modified_id__csv=b"")
    assert FolderSource(tmp_path).index("Go") == {}


def test_zip_bomb_stops_at_record_limit(monkeypatch):
    monkeypatch.setattr(sources, "RECORD_MAX_BYTES", 1000)
    bomb = Archive(io.BytesIO(archive(A_1=b"0" * 10_000, A_2=b"0" * 900)))
    with pytest.raises(LimitExceeded, match="A-1"):
        bomb.read("A-1")
    assert len(bomb.read("A-2")) == 900


def test_archive_stops_at_total_limit(monkeypatch):
    monkeypatch.setattr(sources, "UNPACKED_MAX_BYTES", 1500)
    many = Archive(io.BytesIO(archive(A_1=b"0" * 900, A_2=b"0" * 900)))
    many.read("A-1")
    with pytest.raises(LimitExceeded):
        many.read("A-2")


def test_broken_archive_is_refused(tmp_path):
    with pytest.raises(FeedUnreadable):
        Archive(io.BytesIO(b"PK\x03\x04 nothing"))


def http_source(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> tuple[HttpSource, list[str]]:
    requested: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/export/")
        requested.append(path)
        if path in files:
            return httpx.Response(200, content=iter([files[path]]))
        return httpx.Response(404, content=iter([b""]))

    monkeypatch.setattr("lifecycle.core.http.resolve_destination", lambda host, port: "192.0.2.1")
    client = HttpClient(transport=httpx.MockTransport(answer))
    return HttpSource("https://feeds.example.com/export/", client=client), requested


def test_url_without_folder_list_is_searched_for_known_folders(monkeypatch):
    source, _ = http_source({"Rocky Linux/modified_id.csv": INDEX, "Rocky Linux/A-1.json": RECORD}, monkeypatch)
    assert source.directories() == ["Rocky Linux"]
    assert source.index("Rocky Linux") == {"A-1": "2026-01-01T00:00:00Z"}
    assert list(source.records("Rocky Linux", index_of("A-1"))) == [("A-1", RECORD)]


def test_folder_list_gives_each_ecosystem_once_without_releases(monkeypatch):
    source, _ = http_source({"ecosystems.txt": b"Debian\nDebian:12\nPyPI\n[EMPTY]\n\n"}, monkeypatch)
    assert source.directories() == ["Debian", "PyPI"]


def test_many_records_are_read_from_archive_and_missing_ones_singly(monkeypatch):
    monkeypatch.setattr(sources, "SINGLE_FETCHES_MAX", 1)
    files = {"PyPI/all.zip": archive(A_1=RECORD), "PyPI/A-2.json": RECORD}
    source, requested = http_source(files, monkeypatch)
    found = dict(source.records("PyPI", index_of("A-1", "A-2", "A-3")))
    assert found["A-1"] == found["A-2"] == RECORD
    assert isinstance(found["A-3"], Malformed)
    assert requested == ["PyPI/all.zip", "PyPI/A-2.json", "PyPI/A-3.json"]


def test_url_with_only_archives_is_an_export(monkeypatch):
    source, _ = http_source({"PyPI/all.zip": archive(A_1=RECORD)}, monkeypatch)
    assert source.directories() == ["PyPI"]
    assert source.index("PyPI") == index_of("A-1")
    assert dict(source.records("PyPI", index_of("A-1"))) == {"A-1": RECORD}
    with pytest.raises(FeedUnreadable):
        source.index("Go")


def test_url_of_one_folder_is_an_export(monkeypatch):
    source, _ = http_source({"modified_id.csv": INDEX, "A-1.json": RECORD}, monkeypatch)
    assert (source.directories(), source.index("")) == ([""], index_of("A-1"))


def test_record_outdated_in_archive_is_fetched_singly(monkeypatch):
    monkeypatch.setattr(sources, "SINGLE_FETCHES_MAX", 0)
    newer = RECORD.replace(b"2026", b"2027")
    source, _ = http_source({"PyPI/all.zip": archive(A_1=RECORD), "PyPI/A-1.json": newer}, monkeypatch)
    assert dict(source.records("PyPI", index_of("A-1", modified="2027-01-01T00:00:00Z"))) == {"A-1": newer}
    assert dict(source.records("PyPI", index_of("A-1", modified="2026-01-01T00:00:00.000Z"))) == {"A-1": RECORD}


def test_empty_index_at_url_is_refused_when_archive_has_records(monkeypatch):
    files = {"PyPI/modified_id.csv": b"", "PyPI/all.zip": archive(A_1=RECORD), "Go/modified_id.csv": b""}
    source, _ = http_source(files, monkeypatch)
    assert source.directories() == ["Go", "PyPI"]
    assert source.index("Go") == {}
    with pytest.raises(FeedUnreadable):
        source.index("PyPI")


def test_url_without_single_files_is_read_from_archive(monkeypatch):
    source, requested = http_source({"PyPI/modified_id.csv": INDEX, "PyPI/all.zip": archive(A_1=RECORD)}, monkeypatch)
    assert dict(source.records("PyPI", index_of("A-1"))) == {"A-1": RECORD}
    assert requested.count("PyPI/all.zip") == 1
