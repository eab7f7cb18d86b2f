"""Exports in folders and behind addresses, with what can be wrong about them."""

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


def at(*ids: str, modified: str = "2026-01-01T00:00:00Z") -> dict[str, str]:
    """Return what an index says of these ids."""
    return dict.fromkeys(ids, modified)


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(f"{name.replace('_', '-')}.json", content)
    return buffer.getvalue()


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def test_a_folder_is_read_by_its_index_from_its_archive(tmp_path):
    write(tmp_path / "PyPI", all__zip=archive(A_1=RECORD), modified_id__csv=INDEX)
    source = FolderSource(tmp_path)
    assert source.directories() == ["PyPI"]
    assert source.index("PyPI") == {"A-1": "2026-01-01T00:00:00Z"}
    assert list(source.records("PyPI", at("A-1"))) == [("A-1", RECORD)]


def test_a_single_file_goes_before_the_archive_and_an_index_is_made_when_there_is_none(tmp_path):
    newer = RECORD.replace(b"2026", b"2027")
    write(tmp_path / "PyPI", all__zip=archive(A_1=RECORD, A_2=RECORD))
    (tmp_path / "PyPI" / "A-1.json").write_bytes(newer)
    source = FolderSource(tmp_path)
    assert source.index("PyPI")["A-1"] == "2027-01-01T00:00:00Z"
    assert sorted(source.index("PyPI")) == ["A-1", "A-2"]


def test_of_a_file_and_the_archive_the_copy_counts_that_the_index_speaks_of(tmp_path):
    newer = RECORD.replace(b"2026", b"2027")
    write(tmp_path / "PyPI", all__zip=archive(A_1=newer))
    (tmp_path / "PyPI" / "A-1.json").write_bytes(RECORD)
    source = FolderSource(tmp_path)
    assert dict(source.records("PyPI", at("A-1", modified="2027-01-01T00:00:00Z"))) == {"A-1": newer}
    assert dict(source.records("PyPI", at("A-1"))) == {"A-1": RECORD}
    assert dict(source.records("PyPI", at("A-1", modified="2028-01-01T00:00:00Z"))) == {"A-1": RECORD}


def test_a_folder_of_plain_files_is_an_export_too(tmp_path):
    (tmp_path / "A-1.json").write_bytes(RECORD)
    source = FolderSource(tmp_path)
    assert source.directories() == [""]
    assert source.index("") == {"A-1": "2026-01-01T00:00:00Z"}


def test_an_empty_folder_is_no_export(tmp_path):
    with pytest.raises(FeedUnreadable):
        FolderSource(tmp_path).directories()


def test_a_record_that_is_nowhere_is_named(tmp_path):
    write(tmp_path / "PyPI", all__zip=archive(A_1=RECORD), modified_id__csv=INDEX + b"2026-01-01T00:00:00Z,A-9\n")
    found = dict(FolderSource(tmp_path).records("PyPI", at("A-1", "A-9")))
    assert found["A-1"] == RECORD
    assert isinstance(found["A-9"], Malformed)


def test_an_index_cannot_name_a_path(tmp_path):
    content = b"2026-01-01T00:00:00Z,../../etc/passwd\n2026-01-01T00:00:00Z,PyPI/A-1\n2025-01-01T00:00:00Z,A-1\nbad\n"
    found = parse_index(content, "PyPI")
    assert found == {"A-1": "2026-01-01T00:00:00Z", "../../etc/passwd": "2026-01-01T00:00:00Z"}
    (tmp_path / "x.json").write_bytes(RECORD)
    write(tmp_path / "PyPI", A_1=RECORD)
    (_, refused), (_, missing) = FolderSource(tmp_path).records("PyPI", at("../x", "A-1"))
    assert isinstance(refused, Malformed)
    assert "not a valid record id" in refused.message
    assert isinstance(missing, Malformed)


def test_an_index_that_is_no_csv_is_said_to_be():
    with pytest.raises(FeedUnreadable):
        parse_index(b'2026-01-01T00:00:00Z,"' + b"x" * 200_000, "PyPI")


def test_a_whole_export_is_read_by_its_folders_and_a_flat_one_by_the_index_above(tmp_path):
    above = b"2026-01-01T00:00:00Z,PyPI/A-1\n"
    root = write(tmp_path / "flat", all__zip=archive(A_1=RECORD), modified_id__csv=above)
    flat = FolderSource(root)
    assert (flat.directories(), flat.index("")) == ([""], at("A-1"))
    assert dict(flat.records("", at("A-1"))) == {"A-1": RECORD}
    write(root / "PyPI", all__zip=archive(A_1=RECORD), modified_id__csv=INDEX)
    assert FolderSource(root).directories() == ["PyPI"]


def test_an_index_that_names_nothing_beside_a_full_archive_was_cut_off(tmp_path):
    write(tmp_path / "PyPI", all__zip=archive(A_1=RECORD), modified_id__csv=b"")
    with pytest.raises(FeedUnreadable, match=r"all\.zip has 1"):
        FolderSource(tmp_path).index("PyPI")
    write(tmp_path / "Go", all__zip=archive(), modified_id__csv=b"")
    assert FolderSource(tmp_path).index("Go") == {}


def test_a_zip_bomb_is_stopped_at_the_limit(monkeypatch):
    monkeypatch.setattr(sources, "RECORD_MAX_BYTES", 1000)
    bomb = Archive(io.BytesIO(archive(A_1=b"0" * 10_000, A_2=b"0" * 900)))
    with pytest.raises(LimitExceeded, match="A-1"):
        bomb.read("A-1")
    assert len(bomb.read("A-2")) == 900


def test_an_archive_unpacks_no_more_in_all_than_the_limit(monkeypatch):
    monkeypatch.setattr(sources, "UNPACKED_MAX_BYTES", 1500)
    many = Archive(io.BytesIO(archive(A_1=b"0" * 900, A_2=b"0" * 900)))
    many.read("A-1")
    with pytest.raises(LimitExceeded):
        many.read("A-2")


def test_a_broken_archive_is_said_to_be(tmp_path):
    with pytest.raises(FeedUnreadable):
        Archive(io.BytesIO(b"PK\x03\x04 nothing"))


def served(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> tuple[HttpSource, list[str]]:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/export/")
        asked.append(path)
        if path in files:
            return httpx.Response(200, content=iter([files[path]]))
        return httpx.Response(404, content=iter([b""]))

    monkeypatch.setattr("lifecycle.core.http.resolve_destination", lambda host, port: "192.0.2.1")
    client = HttpClient(transport=httpx.MockTransport(answer))
    return HttpSource("https://feeds.example.com/export/", client=client), asked


def test_an_address_without_a_list_is_asked_for_the_folders_we_know(monkeypatch):
    source, _ = served({"Rocky Linux/modified_id.csv": INDEX, "Rocky Linux/A-1.json": RECORD}, monkeypatch)
    assert source.directories() == ["Rocky Linux"]
    assert source.index("Rocky Linux") == {"A-1": "2026-01-01T00:00:00Z"}
    assert list(source.records("Rocky Linux", at("A-1"))) == [("A-1", RECORD)]


def test_an_addresss_list_names_each_folder_once_without_releases(monkeypatch):
    source, _ = served({"ecosystems.txt": b"Debian\nDebian:12\nPyPI\n[EMPTY]\n\n"}, monkeypatch)
    assert source.directories() == ["Debian", "PyPI"]


def test_many_records_come_as_the_archive_and_the_rest_one_by_one(monkeypatch):
    monkeypatch.setattr(sources, "SINGLE_FETCHES_MAX", 1)
    files = {"PyPI/all.zip": archive(A_1=RECORD), "PyPI/A-2.json": RECORD}
    source, asked = served(files, monkeypatch)
    found = dict(source.records("PyPI", at("A-1", "A-2", "A-3")))
    assert found["A-1"] == found["A-2"] == RECORD
    assert isinstance(found["A-3"], Malformed)
    assert asked == ["PyPI/all.zip", "PyPI/A-2.json", "PyPI/A-3.json"]


def test_an_address_may_have_archives_alone(monkeypatch):
    source, _ = served({"PyPI/all.zip": archive(A_1=RECORD)}, monkeypatch)
    assert source.directories() == ["PyPI"]
    assert source.index("PyPI") == at("A-1")
    assert dict(source.records("PyPI", at("A-1"))) == {"A-1": RECORD}
    with pytest.raises(FeedUnreadable):
        source.index("Go")


def test_an_address_of_one_folder_is_an_export_too(monkeypatch):
    source, _ = served({"modified_id.csv": INDEX, "A-1.json": RECORD}, monkeypatch)
    assert (source.directories(), source.index("")) == ([""], at("A-1"))


def test_an_archive_that_lags_behind_the_index_is_not_believed(monkeypatch):
    monkeypatch.setattr(sources, "SINGLE_FETCHES_MAX", 0)
    newer = RECORD.replace(b"2026", b"2027")
    source, _ = served({"PyPI/all.zip": archive(A_1=RECORD), "PyPI/A-1.json": newer}, monkeypatch)
    assert dict(source.records("PyPI", at("A-1", modified="2027-01-01T00:00:00Z"))) == {"A-1": newer}
    assert dict(source.records("PyPI", at("A-1", modified="2026-01-01T00:00:00.000Z"))) == {"A-1": RECORD}


def test_an_empty_index_of_an_address_counts_only_beside_an_empty_archive(monkeypatch):
    files = {"PyPI/modified_id.csv": b"", "PyPI/all.zip": archive(A_1=RECORD), "Go/modified_id.csv": b""}
    source, _ = served(files, monkeypatch)
    assert source.directories() == ["Go", "PyPI"]
    assert source.index("Go") == {}
    with pytest.raises(FeedUnreadable):
        source.index("PyPI")


def test_an_address_without_single_files_is_read_from_its_archive_however_few_are_wanted(monkeypatch):
    source, asked = served({"PyPI/modified_id.csv": INDEX, "PyPI/all.zip": archive(A_1=RECORD)}, monkeypatch)
    assert dict(source.records("PyPI", at("A-1"))) == {"A-1": RECORD}
    assert asked.count("PyPI/all.zip") == 1
