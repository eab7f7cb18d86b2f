"""Anchors: checkpoints leave the machine, and what they have keeps a restored log from growing under its name."""

from __future__ import annotations

import json
import re
import shutil
import socket
from datetime import timedelta

import pytest
from django.core import mail
from django.test import Client

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotPermitted, RegistryUnavailable
from lifecycle.jobs.handlers import JobRun
from lifecycle.jobs.models import Job
from lifecycle.oci.scopes import parse_scopes
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Registry
from lifecycle.sealed_log import anchoring
from lifecycle.sealed_log import services as sealing
from lifecycle.sealed_log.models import Anchor, LogCheckpoint
from lifecycle.sealed_log.queries import current_origin, last_checkpoint
from lifecycle.sealed_log.running import AnchorsUnread
from lifecycle.sealed_log.status import status
from tests.integration.sealed_log.test_sealer import restore_to

BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def admin(transactional_db) -> User:
    return User.objects.create(username="admin", is_superuser=True)


@pytest.fixture
def sealed(log, write, admin):
    write(3)
    log.seal()
    return log


def run_job(row: Anchor) -> Job:
    """Run the anchor's job as a worker does."""
    job = Job.objects.filter(kind="anchor", subject_id=row.pk).latest("pk")
    Job.objects.filter(pk=job.pk).update(
        state="running", lease_until=clock.now() + timedelta(minutes=1), started_at=clock.now()
    )
    job.refresh_from_db()
    sealing.run_anchor(JobRun(job))
    return job


def test_folder_gets_each_checkpoint_once_and_read_only(sealed, write, admin, settings, tmp_path):
    settings.ANCHOR_FOLDER = str(tmp_path / "elsewhere")
    row = sealing.add_anchor("auditors", "folder", "us", actor=admin)
    run_job(row)
    (path,) = (tmp_path / "elsewhere" / "us").iterdir()
    assert path.read_text() == last_checkpoint(current_origin()).note
    assert path.stat().st_mode & 0o222 == 0
    row.refresh_from_db()
    assert (row.size, row.problem) == (5, "")
    now = status()
    assert (now.anchored_size, now.is_same_machine, now.problems) == (5, False, ())
    assert sealing.queue_anchors() == 0  # nothing new
    write()
    sealed.seal()
    assert sealing.queue_anchors() == 0  # too early
    Anchor.objects.update(anchored_at=clock.now() - timedelta(minutes=6))
    assert sealing.queue_anchors() == 1
    event = AuditEvent.objects.get(action="audit.anchor_added")
    assert event.details == {"anchor": "auditors", "kind": "folder", "target": "us"}


def test_restored_log_is_found_by_an_anchor_when_the_files_are_gone(  # noqa: PLR0917 -- fixtures
    sealed, write, admin, settings, tmp_path, services
):
    settings.ANCHOR_FOLDER = str(tmp_path / "elsewhere")
    row = sealing.add_anchor("auditors", "folder", "us", actor=admin)
    before = last_checkpoint(current_origin())
    write(4)
    sealed.seal()
    run_job(row)
    restore_to(before, services)
    shutil.rmtree(sealed.folder)  # a new machine
    write()
    sealed.seal()
    origin = current_origin()
    assert (origin.number, origin.why, origin.previous_size, origin.restored_size) == (2, "restored", 10, 5)
    assert not LogCheckpoint.objects.filter(origin__number=1, size__gt=before.size).exists()


def test_nothing_is_signed_before_each_anchor_was_read(  # noqa: PLR0917 -- fixtures
    sealed, write, admin, settings, tmp_path, services
):
    """A restored database whose files are gone too, and one of two anchors cannot be read at first."""
    settings.ANCHOR_FOLDER = str(tmp_path / "elsewhere")
    lost, kept = (sealing.add_anchor(name, "folder", name, actor=admin) for name in ("lost", "kept"))
    before = last_checkpoint(current_origin())
    write(4)
    sealed.seal()
    run_job(lost)
    run_job(kept)
    restore_to(before, services)
    shutil.rmtree(sealed.folder)
    write()
    folder = tmp_path / "elsewhere" / "lost"
    folder.rename(folder.with_name("unmounted"))
    with pytest.raises(AnchorsUnread, match=r"lost: it got a checkpoint of 11 entries, and shows none"):
        sealed.seal()
    settings.ANCHOR_FOLDER = ""
    with pytest.raises(AnchorsUnread, match=r"lost: ANCHOR_FOLDER is not set any more\..*kept: "):
        sealed.seal()
    assert last_checkpoint(current_origin()).size == before.size
    settings.ANCHOR_FOLDER = str(tmp_path / "elsewhere")
    settings.SEAL_WITHOUT_ANCHORS = True
    assert sealed.seal() > 0  # the operator says so, and the other anchor still counts
    origin = current_origin()
    assert (origin.number, origin.why, origin.previous_size) == (2, "restored", 11)


def test_mail_and_syslog_carry_the_checkpoint(sealed, admin, settings):
    settings.MAIL_IS_ON = True
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    run_job(sealing.add_anchor("by-mail", "mail", "audit@example.com", actor=admin))
    checkpoint = last_checkpoint(current_origin())
    assert checkpoint.note in mail.outbox[0].body
    assert mail.outbox[0].to == ["audit@example.com"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run_job(sealing.add_anchor("by-line", "syslog", f"tcp://127.0.0.1:{port}", actor=admin))
        link, _ = server.accept()
        with link:
            received = link.recv(65536)
    length, _, message = received.partition(b" ")
    assert int(length) == len(message)
    assert message == anchoring.syslog_line(checkpoint)
    found = re.fullmatch(
        r"<109>1 \S+ localhost gravingdock - checkpoint \[checkpoint@32473 origin=\"(.*)\" size=\"5\" root=\"(.*)\""
        r" signature=\"(.*)\"\]",
        message.decode(),
    )
    assert found is not None
    assert found[2] in checkpoint.note
    assert found[3] in checkpoint.note


def test_registry_gets_an_artifact_with_a_token_that_cannot_delete(sealed, write, admin, services, monkeypatch):
    services.need_web()
    services.need_registry()
    sealed.has_registry = True
    asked = []
    from lifecycle.oci import signing

    sign = signing.sign
    monkeypatch.setattr(
        "lifecycle.oci.authorization.signing.sign",
        lambda who, scopes: asked.extend(map(str, scopes)) or sign(who, scopes),
    )
    row = sealing.add_anchor("ours", "oci", "", actor=admin)
    run_job(row)
    assert row.target == "audit-anchors/checkpoints"
    client = client_for(Registry.objects.get(is_managed=True))
    manifest = json.loads(client.get_manifest(row.target, "1-5").content)
    assert manifest["artifactType"] == "application/vnd.gravingdock.checkpoint.v1"
    assert asked
    assert not any("delete" in scope.actions or "*" in scope.actions for scope in parse_scopes(asked))
    from lifecycle.sealed_log.keys import load_or_make

    (head,), problems = anchoring.seen_elsewhere(load_or_make(sealed.key_file).public_key())
    assert problems == []
    assert (head.size, head.place) == (5, "anchor ours")
    services.kill("registry")
    write()
    with pytest.raises(AnchorsUnread, match="ours"):
        sealed.seal()
    Anchor.objects.update(anchored_at=None, size=0)
    sealing.queue_anchors()
    with pytest.raises(RegistryUnavailable):
        run_job(row)
    row.refresh_from_db()
    assert (row.size, bool(row.problem)) == (0, True)


def test_nobody_but_admins_manages_anchors_and_the_last_one_stays(sealed, admin, settings, tmp_path):
    with pytest.raises(NotPermitted):
        sealing.add_anchor("mine", "mail", "me@example.com", actor=User.objects.create(username="kim"))
    for kind, target in (
        ("folder", "x"),
        ("syslog", "logs:514"),
        ("syslog", "http://a:1"),
        ("mail", "x"),
        ("ftp", "x"),
    ):
        with pytest.raises(Malformed):
            sealing.add_anchor("one", kind, target, actor=admin)
    settings.ANCHOR_FOLDER = str(tmp_path)
    with pytest.raises(Malformed):
        sealing.add_anchor("one", "folder", "../x", actor=admin)
    first = sealing.add_anchor("one", "mail", "a@example.com", actor=admin)
    with pytest.raises(Conflict, match="name"):
        sealing.add_anchor("one", "mail", "a@example.com", actor=admin)
    with pytest.raises(Conflict, match="last"):
        sealing.remove_anchor(first.pk, actor=admin)
    second = sealing.add_anchor("two", "mail", "b@example.com", actor=admin)
    sealing.remove_anchor(first.pk, actor=admin)
    assert list(Anchor.objects.all()) == [second]


def test_late_anchor_and_waiting_event_are_shown(sealed, write, admin, services):
    client = Client()
    client.force_login(admin, backend=BACKEND)
    page = client.get("/audit/").content.decode()
    assert "Sealed at size 5" in page
    assert "not anchored yet" in page
    assert "on the same machine" in page
    write()
    services._as_superuser(
        "SET session_replication_role = replica; UPDATE lifecycle_logcheckpoint SET at = at - interval '2 hours';"
        " UPDATE lifecycle_auditevent SET at = at - interval '2 minutes'; SET session_replication_role = DEFAULT"
    )
    for path in ("/audit/", "/audit/log/"):
        page = client.get(path).content.decode()
        assert "No anchor got a checkpoint for more than an hour." in page
        assert "An event waits for 2 minutes" in page
    answer = client.get("/api/v1/audit-log/").json()
    assert (answer["size"], len(answer["problems"])) == (5, 2)


def test_event_page_says_where_an_event_is_sealed(sealed, write, admin):
    client = Client()
    client.force_login(admin, backend=BACKEND)
    event = AuditEvent.objects.earliest("pk")
    page = client.get(f"/audit/{event.pk}/").content.decode()
    assert "entry 1 of 5" in page
    assert "not anchored yet" in page
    (waiting,) = write()
    page = client.get(f"/audit/{waiting.pk}/").content.decode()
    assert "Not sealed yet" in page
    assert "Not in the log" not in page


def test_page_and_api_agree_on_what_the_log_has(sealed, write, admin, services):
    """One event of each kind: sealed, waiting, and recorded past the trigger that makes it wait."""
    client = Client()
    client.force_login(admin, backend=BACKEND)
    lost, waiting = write(2)
    services._as_superuser(f"DELETE FROM lifecycle_auditpending WHERE event_id = {lost.pk}")
    known = AuditEvent.objects.earliest("pk")
    chips = {known.pk: "Sealed", waiting.pk: "Not sealed yet", lost.pk: "Not in the log"}
    listed = {row["id"]: row["is_sealed"] for row in client.get("/api/v1/audit-events/").json()["results"]}
    for pk, chip in chips.items():
        page = client.get(f"/audit/{pk}/").content.decode()
        assert [text for text in chips.values() if f"{text}</span>" in page] == [chip]
        single = client.get(f"/api/v1/audit-events/{pk}/").json()["is_sealed"]
        assert single is listed[pk] is (chip == "Sealed")


def test_forms_and_api_add_and_remove(sealed, admin):
    client = Client()
    client.force_login(admin, backend=BACKEND)
    refused = client.post("/audit/log/", {"name": "auditors", "kind": "mail", "target": "nobody"})
    assert refused.status_code == 422
    assert b"Enter a mail address." in refused.content
    assert b'value="nobody"' in refused.content
    body = {"name": "auditors", "kind": "mail", "target": "audit@example.com"}
    assert client.post("/audit/log/", body)["Location"] == "/audit/log/"
    made = client.post("/api/v1/audit-anchors/", {**body, "name": "second"}, content_type="application/json")
    assert made.status_code == 201
    assert [row["name"] for row in client.get("/api/v1/audit-anchors/").json()["results"]] == ["auditors", "second"]
    assert client.delete(f"/api/v1/audit-anchors/{made.json()['id']}/").status_code == 204
    assert b"audit@example.com" in client.get("/audit/log/").content
