"""The file of a snapshot: found entries, swaps, and broken files."""

from __future__ import annotations

import hashlib
import time

import pytest

from lifecycle.admission import snapshot
from lifecycle.admission.server import Application
from lifecycle.admission.snapshot import BadSnapshot, Snapshot, key_of_digest, key_of_tag
from tests.factories.reviews import SECRET, configuration, content, image, pod, review, send, sha


def test_every_digest_and_tag_is_found(tmp_path):
    keys = [hashlib.sha256(str(number).encode()).digest() for number in range(3000)]
    keys += [b"\0" * 31 + bytes([number]) for number in range(200)]  # of one bucket, and alike across their ends
    rows = [(key, b'["%d",{}]' % index) for index, key in enumerate(keys)]
    tags = [(key_of_tag("h/r", str(index)), key) for index, key in enumerate(keys)]
    snapshot.write(tmp_path, snapshot.build(1, configuration(), rows, [*tags, (key_of_tag("h/r", "x"), b"?" * 32)]))
    taken = Snapshot(tmp_path / snapshot.NAME)
    for index, key in enumerate(keys):
        assert taken.flags_of(f"sha256:{key.hex()}").quarantine == str(index)
        assert taken.digest_of("h/r", str(index)) == f"sha256:{key.hex()}"
    assert taken.flags_of(sha("absent")) is None
    assert (taken.digest_of("h/r", "x"), taken.digest_of("h/other", "1")) == ("", "")


def test_digest_of_another_algorithm_is_found(tmp_path):
    digest = "sha512:" + "ab" * 64
    snapshot.write(tmp_path, snapshot.build(1, configuration(), [(key_of_digest(digest), b'["x",{}]')], []))
    assert Snapshot(tmp_path / snapshot.NAME).flags_of(digest).quarantine == "x"
    assert Snapshot(tmp_path / snapshot.NAME).flags_of("sha512:" + "cd" * 64) is None


def test_empty_snapshot_knows_nothing(tmp_path):
    snapshot.write(tmp_path, snapshot.build(1, {"hosts": {}, "environments": {}, "clusters": {}}, [], []))
    taken = Snapshot(tmp_path / snapshot.NAME)
    assert (taken.flags_of(sha("x")), taken.digest_of("h/r", "1"), taken.cluster_for("north", SECRET)) == (
        None,
        "",
        None,
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:50],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"X" + data[1:],
        lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        lambda data: b"garbage" * 1000,
    ],
)
def test_broken_file_keeps_the_present_snapshot(tmp_path, spoil):
    path = tmp_path / snapshot.NAME
    snapshot.write(tmp_path, content(1))
    application = Application(tmp_path, "https://g.example")
    path.write_bytes(spoil(content(2)))  # in place, as a broken disk or a careless copy would
    with pytest.raises(BadSnapshot):
        Snapshot(path)
    application.look()
    assert (application.snapshot.number, bool(application.problem)) == (1, True)
    assert send(application, review(pod(image("good"))))[1]["allowed"] is True
    snapshot.write(tmp_path, content(3))
    application.look()
    assert (application.snapshot.number, application.problem) == (3, "")


def test_renewed_time_is_taken_up_and_nothing_else_changes(tmp_path):
    old = time.time() - 5000
    snapshot.write(tmp_path, snapshot.build(7, configuration(), [], [], written_at=old))
    application = Application(tmp_path, "https://g.example")
    assert application.snapshot.age_s() > 4999
    snapshot.renew(tmp_path)
    application.look()
    assert application.snapshot.age_s() < 10
    assert Snapshot(tmp_path / snapshot.NAME).number == 7


def test_secret_that_ended_is_refused(tmp_path):
    ended = [[hashlib.sha256(SECRET.encode()).hexdigest(), time.time() - 1]]
    snapshot.write(tmp_path, content(secrets=ended))
    assert Snapshot(tmp_path / snapshot.NAME).cluster_for("north", SECRET) is None
    valid = [[ended[0][0], time.time() + 60]]
    snapshot.write(tmp_path, content(secrets=valid))
    assert Snapshot(tmp_path / snapshot.NAME).cluster_for("north", SECRET).pk == 1
