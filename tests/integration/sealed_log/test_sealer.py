"""Events become entries of the log: none is lost, whoever ends the sealer and whenever, and none is sealed twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent, AuditPending
from lifecycle.sealed_log import entries, sealer
from lifecycle.sealed_log.keys import KeyRefused, load_or_make
from lifecycle.sealed_log.models import EventSalt, LogCheckpoint, LogOrigin, Pseudonym, SealedEntry
from lifecycle.sealed_log.publishing import published
from lifecycle.sealed_log.queries import current_origin, last_checkpoint, tile_content, tree_of
from lifecycle.sealed_log.running import Sealer
from lifecycle.sealed_log.types import StoredEvent
from lifecycle.tlog.canonical import canonical
from lifecycle.tlog.notes import Checkpoint, VerifierKey
from lifecycle.tlog.tiles import ENTRIES, TileName
from lifecycle.tlog.tree import hash_of_entry
from tests.integration.sealed_log.sealing_log import run_as_owner
from tests.services import ROOT

STEPS = ("locked", "taken", "entries", "tiles", "checkpoint", "committed", "tile", "all_tiles", "published")


def stored(event_id: int) -> StoredEvent:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sealer._COLUMNS} FROM lifecycle_auditevent WHERE id = %s", [event_id])
        *values, details = cursor.fetchone()
    return StoredEvent(*values, json.loads(details))


def entry_of(event: AuditEvent) -> dict:
    found = json.loads(bytes(SealedEntry.objects.get(event_id=event.pk).entry))
    assert isinstance(found, dict)
    return found


def assert_log_is_whole(folder: Path) -> None:
    """Check that each event has one entry, that the tree is over all of them, and that the files show the same."""
    origin = current_origin()
    head = last_checkpoint(origin)
    rows = list(SealedEntry.objects.filter(origin=origin).order_by("index"))
    assert [row.index for row in rows] == list(range(head.size))
    assert all(hash_of_entry(bytes(row.entry)) == bytes(row.hash) for row in rows)
    tree = tree_of(head)
    assert all(tree.leaf(row.index) == bytes(row.hash) for row in rows)
    text = VerifierKey.parse(origin.key).text_of(head.note)
    assert Checkpoint.parse(text) == Checkpoint(origin.name, head.size, tree.root())
    assert not AuditPending.objects.exists()
    sealed = {row.event_id for row in rows} - {None}
    assert sealed == set(AuditEvent.objects.values_list("pk", flat=True))
    assert published(folder, origin.number) == Checkpoint(origin.name, head.size, tree.root())
    place = folder / str(origin.number) / "tile"
    for path in place.rglob("*"):
        if path.is_file():
            name = TileName.parse(str(path.relative_to(place)))
            assert name is not None, path
            assert path.read_bytes() == tile_content(origin, name, head.size)
    last = TileName(ENTRIES, (head.size - 1) // 256, (head.size - 1) % 256 + 1)
    assert (place / str(last)).is_file()


def test_events_of_before_are_sealed_and_the_first_entry_says_so(log, write):
    write(3)
    assert log.seal() == 4  # and that the log began
    first = json.loads(bytes(SealedEntry.objects.get(index=0).entry))
    assert (first["type"], first["backlog"], first["previous"]) == ("start", 3, None)
    started = AuditEvent.objects.get(action="audit.log_started")
    assert started.details == {"origin": first["origin"], "why": "started", "previous": "", "backlog": 3}
    assert_log_is_whole(log.folder)
    assert log.seal() == 0
    assert LogCheckpoint.objects.count() == 1


def test_entries_name_people_by_pseudonym_and_texts_by_salted_hash(log, write):
    kim = User.objects.create(username="kim")
    (event,) = write(actor=kim, reason="a secret reason", about="kim")
    log.seal()
    entry = bytes(SealedEntry.objects.get(event_id=event.pk).entry)
    assert b"kim" not in entry
    assert b"secret" not in entry
    value = json.loads(entry)
    assert canonical(value) == entry  # RFC 8785
    code = Pseudonym.objects.get(user=kim).code
    assert value["actor"] == code
    salts = bytes(EventSalt.objects.get(pk=event.pk).salts)
    assert value["hashed"] == entries.text_hashes(stored(event.pk), salts)
    assert value["hashed"] != entries.text_hashes(stored(event.pk), bytes(len(salts)))
    assert value["at"] == event.at.isoformat()
    (later,) = write(actor=kim)
    log.seal()
    assert entry_of(later)["actor"] == code  # stable
    person = [link for link in entry_of(later)["links"] if link["kind"] == "person"]
    assert person == [{"kind": "person", "id": code, "n": 2, "previous": hash_of_entry(entry).hex()}]


def test_entries_are_linked_by_image_environment_request_team_and_person(log, transactional_db):
    from tests.factories.shop import make_dock, make_request

    dock = make_dock()
    request = make_request(dock)
    with transaction.atomic():
        for _ in range(2):
            event = audit.record(
                Action.PROMOTION_READY, actor=dock.approver, subject=request, repository=dock.repository,
                environment=request.environment, image=dock.image,
            )  # fmt: skip
    log.seal(limit=5)
    while log.seal(limit=5):
        pass
    links = {(link["kind"], link["id"]): link for link in entry_of(event)["links"]}
    code = Pseudonym.objects.get(user=dock.approver).code
    assert set(links) == {
        ("image", dock.image.digest), ("environment", f"{dock.team.pk}/{request.environment.slug}"),
        ("request", str(request.pk)), ("team", str(dock.team.pk)), ("person", code),
    }  # fmt: skip
    for (kind, key), link in links.items():
        about = [
            (row.index, bytes(row.hash), found["n"], found["previous"])
            for row in SealedEntry.objects.order_by("index")
            for found in json.loads(bytes(row.entry)).get("links", ())
            if (found["kind"], found["id"]) == (kind, key)
        ]
        assert [number for _, _, number, _ in about] == list(range(1, link["n"] + 1))
        before = [None, *(value.hex() for _, value, _, _ in about)]
        assert [previous for _, _, _, previous in about] == before[:-1]


@pytest.mark.parametrize("limit", [1, 7, 300])
def test_tiles_grow_over_many_batches(log, write, limit):
    write(20 if limit < 10 else 600)
    while log.seal(limit=limit):
        pass
    assert_log_is_whole(log.folder)
    if limit == 300:
        assert (log.folder / "1" / "tile" / "1" / "000.p" / "2").is_file()
        assert (log.folder / "1" / "tile" / "entries" / "000").is_file()


def test_large_details_are_a_digest_in_the_entry(log, write):
    (event,) = write(reason="x" * 200_000)
    log.seal()
    assert len(bytes(SealedEntry.objects.get(event_id=event.pk).entry)) < 2_000
    assert_log_is_whole(log.folder)


def test_rolled_back_event_leaves_nothing(log, write):
    with transaction.atomic():
        audit.record(Action.TEAM_CREATED, actor=system_user())
        transaction.set_rollback(True)
    write()
    log.seal()
    assert not AuditEvent.objects.filter(action="team.created").exists()
    assert_log_is_whole(log.folder)


def test_event_of_a_slow_transaction_is_sealed_after_later_ones(log, write, in_other_connection):
    write()
    log.seal()
    with transaction.atomic():
        slow = audit.record(Action.TEAM_CREATED, actor=system_user())
        in_other_connection(lambda: write(2))
        assert log.seal() == 2
    assert log.seal() == 1
    assert SealedEntry.objects.get(event_id=slow.pk).index == SealedEntry.objects.count() - 1
    assert_log_is_whole(log.folder)


def test_only_one_seals_at_a_time(log, write, as_owner):
    write()

    def while_another_works() -> int:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [sealer._LOCK])
            return log.seal()

    assert as_owner(while_another_works) == 0
    assert log.seal() == 2


def killed_at(step: str, log) -> int:
    """Seal in a child that kills itself at `step`; return how it ended. It has a connection of its own."""

    def at(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # our threads do nothing meanwhile
        child = os.fork()
    if not child:
        try:
            run_as_owner(lambda: Sealer(log.folder, log.key_file).step(at=at))
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("step", STEPS)
def test_killed_sealer_loses_nothing_and_seals_nothing_twice(log, write, step):
    write(2)
    log.seal()
    write(300)
    assert killed_at(step, log) == -signal.SIGKILL
    is_committed = STEPS.index(step) >= STEPS.index("committed")
    assert AuditPending.objects.exists() is not is_committed
    assert log.seal() == (0 if is_committed else 300)
    assert_log_is_whole(log.folder)
    assert LogOrigin.objects.count() == 1


def test_command_seals_all_and_exits(log, write):
    write(3)
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"} | {
        "LOG_FOLDER": str(log.folder),
        "LOG_KEY_FILE": str(log.key_file),
    }
    words = [sys.executable, "manage.py", "sealer", "--once"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_log_is_whole(log.folder)
    log.key_file.chmod(0o640)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "chmod 600" in done.stderr) == (1, True)


def test_key_is_made_once_and_only_for_its_owner(tmp_path):
    path = tmp_path / "sealer" / "key.pem"
    first = load_or_make(path).public_key()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert load_or_make(path).public_key() == first
    path.write_bytes(b"something else")
    with pytest.raises(KeyRefused, match="PEM"):
        load_or_make(path)


def test_restored_database_gets_a_new_log_that_names_the_old_one(log, write, services):
    write(5)
    log.seal()
    old = last_checkpoint(current_origin())
    write(4)
    log.seal()
    seen = last_checkpoint(current_origin())
    restore_to(old, services)
    write()
    log.seal()
    origin = current_origin()
    assert (origin.number, origin.why, origin.previous) == (2, "restored", old.origin.name)
    first = json.loads(bytes(SealedEntry.objects.get(origin=origin, index=0).entry))
    assert first["previous"] == {
        "origin": old.origin.name, "size": seen.size, "root": bytes(seen.root).hex(), "restored_size": old.size,
    }  # fmt: skip
    assert AuditEvent.objects.filter(action="audit.log_started", details__why="restored").count() == 1
    write()
    log.seal()  # the files of the old log still show the larger size: that is answered for
    assert (current_origin(), last_checkpoint(origin).size) == (origin, 4)
    assert not LogCheckpoint.objects.filter(origin=old.origin, size__gt=old.size).exists()


def test_sealer_signs_nothing_on_top_of_a_changed_tree(log, write, services):
    write(5)
    log.seal()
    services._as_superuser(
        "UPDATE lifecycle_logtile SET hashes = set_byte(hashes, 40, (get_byte(hashes, 40) + 1) % 256)"
    )
    write()
    with pytest.raises(sealer.LogBroken, match="size 7"):
        log.seal()
    assert AuditPending.objects.count() == 1


def test_changed_key_begins_a_new_log(log, write):
    write()
    log.seal()
    log.key_file.unlink()
    write()
    log.seal()
    assert [(row.number, row.why) for row in LogOrigin.objects.order_by("number")] == [
        (1, "started"), (2, "key_changed"),
    ]  # fmt: skip
    assert current_origin().previous_size == 3


@pytest.mark.parametrize("table", ["sealedentry", "logcheckpoint", "logorigin"])
def test_neither_application_nor_owner_changes_the_log(log, write, services, table):
    write()
    log.seal()
    with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
        connection.cursor().execute(f"DELETE FROM lifecycle_{table}")
    link = services.cluster.connect("gravingdock_owner", "gravingdock")
    try:
        with link.cursor() as cursor, pytest.raises(Exception, match="append-only"):
            cursor.execute(f"DELETE FROM lifecycle_{table}")
    finally:
        link.close()


def restore_to(head: LogCheckpoint, services) -> None:
    """Bring the database back to what it was at `head`, as restoring a backup does."""
    last = SealedEntry.objects.get(index=head.size - 1).event_id
    services._as_superuser(
        "SET session_replication_role = replica;"
        f" DELETE FROM lifecycle_sealedentry WHERE index >= {head.size};"
        f" DELETE FROM lifecycle_logcheckpoint WHERE size > {head.size};"
        f" DELETE FROM lifecycle_auditevent WHERE id > {last}; DELETE FROM lifecycle_auditpending;"
        f" DELETE FROM lifecycle_eventsalt WHERE event_id > {last};"
        f" UPDATE lifecycle_logtile SET hashes = substr(hashes, 1, {head.size * 32});"
        " SET session_replication_role = DEFAULT"
    )
