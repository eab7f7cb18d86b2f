"""Signed exports, checked by `gravingdock-verify`: whatever the owner of the database changes is named by its index."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import transaction
from django.test import Client

from accounts.models import Team, User
from gravingdock_verify.main import main
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.sealed_log.exporting import Wanted, export
from lifecycle.sealed_log.keys import load_or_make
from lifecycle.sealed_log.models import LogCheckpoint, Pseudonym, SealedEntry
from lifecycle.sealed_log.queries import current_origin, last_checkpoint
from lifecycle.tlog.notes import Checkpoint
from tests.factories.shop import make_dock
from tests.integration.sealed_log.tampering import TAMPERING, forget_log, tamper
from tests.integration.sealed_log.test_sealer import restore_to
from tests.services import ROOT

BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
SUMDB_CHECK = os.environ.get("SUMDB_CHECK", "")


@pytest.fixture
def admin(transactional_db) -> User:
    return User.objects.create(username="admin", is_superuser=True)


class Auditor:
    """Somebody with an export, a key, and checkpoints from earlier days."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.file = folder / "audit.zip"
        self.older: list[Path] = []

    def keep_checkpoint(self) -> Path:
        """Keep the checkpoint of now for later."""
        path = self.folder / f"checkpoint-{len(self.older)}"
        path.write_text(last_checkpoint(current_origin()).note)
        self.older.append(path)
        return path

    def export(self, actor: User, **wanted) -> Path:
        """Write an export."""
        with export(actor, Wanted(**wanted)) as stream, self.file.open("wb") as target:
            shutil.copyfileobj(stream, target)
        return self.file

    def rewrite(self, change: Callable[[dict, list[dict]], None], *, without: str = "log/") -> None:
        """Pass the export on with another `export.json` and other lines, and without some files."""
        with zipfile.ZipFile(self.file) as archive:
            files = {name: archive.read(name) for name in archive.namelist() if not name.startswith(without)}
        about = json.loads(files["export.json"])
        rows = [json.loads(line) for line in files["entries.jsonl"].splitlines()]
        change(about, rows)
        files["export.json"] = json.dumps(about).encode()
        files["entries.jsonl"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        with zipfile.ZipFile(self.file, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    def verify(self, *words: str) -> tuple[int, dict]:
        """Return (exit code, result) of the verifier."""
        older = [word for path in self.older for word in ("--older", str(path))]
        trust = [] if "--key" in words else ["--trust-export-key"]
        code = main([str(self.file), "--json", *trust, *older, *words])
        return code, json.loads(self.capsys.readouterr().out)


@pytest.fixture
def auditor(tmp_path, capsys) -> Auditor:
    return Auditor(tmp_path, capsys)


@pytest.fixture
def whole(log, write, admin):
    """A log of 11 entries, with checkpoints of 8 and 11: its beginning, the event of that, and nine more."""
    write(6, actor=admin, reason="why")
    log.seal()
    write(3, actor=admin, reason="why")
    log.seal()
    return log


def test_whole_log_is_what_was_sealed(whole, write, admin, auditor):
    auditor.keep_checkpoint()
    write(300, actor=admin)
    whole.seal()
    auditor.keep_checkpoint()
    write()
    whole.seal()
    auditor.export(admin)
    key = auditor.folder / "key"
    key.write_text(current_origin().key)
    code, result = auditor.verify("--key", str(key))
    assert (code, result["problems"], result["entries"]) == (0, [], 312)
    (part,) = result["logs"]
    assert (part["size"], part["entries"], part["first"], part["last"]) == (312, 312, 0, 311)
    assert part["newest_at"] == AuditEvent.objects.exclude(action="audit.exported").latest("at").at.isoformat()
    assert result["is_selection"] is False
    assert auditor.verify("--key", str(key), "--whole")[0] == 0
    assert result["notices"] == [f"{current_origin().name}: 6 events are older than the log."]
    event = AuditEvent.objects.get(action="audit.exported")
    assert (event.actor, event.details) == (admin, {"format": "sealed", "filter": {}})
    other = key.with_name("other")
    other.write_text("lifecycle.example/audit+dda3ba39+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop")
    code, result = auditor.verify("--key", str(other))
    assert (code, "another key" in result["first_bad"]["problem"]) == (1, True)


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_by_the_owner_of_the_database_is_named_by_its_index(how, whole, admin, auditor, services):
    auditor.keep_checkpoint()
    auditor.export(admin)
    assert auditor.verify()[0] == 0
    index = tamper(how, services)
    auditor.export(admin)
    code, result = auditor.verify()
    assert code == 1
    assert index is None or result["first_bad"]["index"] == index, result["problems"]
    assert result["first_bad"]["log"] == current_origin().name


def test_rewritten_log_with_the_key_is_shown_by_an_older_checkpoint(whole, write, admin, auditor, services):
    """Somebody with database and key signs another history: a kept checkpoint is not its beginning."""
    auditor.keep_checkpoint()
    services.empty_database()
    shutil.rmtree(whole.folder)
    again = User.objects.create(username="admin", is_superuser=True)
    write(20, actor=again)
    whole.seal()
    auditor.export(again)
    code, result = auditor.verify()
    assert code == 1
    assert "does not begin with your checkpoint" in result["first_bad"]["problem"]
    auditor.older.clear()
    assert auditor.verify()[0] == 0  # without it, nobody can tell


def test_restore_is_told_with_what_was_lost(whole, write, admin, auditor, services):
    before = last_checkpoint(current_origin())
    write(4)
    whole.seal()
    auditor.keep_checkpoint()
    restore_to(before, services)
    write()
    whole.seal()
    auditor.export(admin)
    code, result = auditor.verify()
    assert (code, result["problems"]) == (3, [])
    name = before.origin.name
    assert (
        f"{name}/2 follows {name}, which had 15 entries: the database was restored and lacks 4 entries."
        in (result["notices"])
    )
    assert auditor.verify("--known-restore", f"{name}/2")[0] == 0


def test_a_restore_excuses_only_what_it_lost(whole, write, admin, auditor, services):
    """Whoever deletes the log before it, which the restored database had, is seen with and without a checkpoint."""
    before = last_checkpoint(current_origin())
    auditor.keep_checkpoint()  # of what the restored database has
    write(4)
    whole.seal()
    restore_to(before, services)
    write()
    whole.seal()
    auditor.export(admin)
    assert auditor.verify()[0] == 3
    name = before.origin.name
    forget_log(1, services)
    auditor.export(admin)
    code, result = auditor.verify()
    texts = {row["problem"] for row in result["problems"]}
    assert (code, "Your checkpoint is of a log that the export does not have." in texts) == (1, True)
    auditor.older.clear()
    code, result = auditor.verify()
    assert (code, result["problems"]) == (1, [
        {"log": f"{name}/2", "index": 0, "problem": f"It follows 11 entries of {name}, which the export lacks."},
        {"log": "log 1", "index": None, "problem": "The log is missing."},
    ])  # fmt: skip


def test_export_of_a_team_has_its_events_without_gaps(log, admin, auditor, services):
    dock = make_dock()
    with transaction.atomic():
        for team in (dock.team, None, dock.team, dock.team, None):
            audit.record(Action.TEAM_CREATED, actor=dock.owner, team=team)
    log.seal()
    auditor.export(dock.owner, subject="team shop")
    code, result = auditor.verify()
    sealed = AuditEvent.objects.filter(team=dock.team, pk__in=SealedEntry.objects.values("event_id")).count()
    assert (code, result["entries"]) == (0, sealed)
    gone = AuditEvent.objects.filter(team=dock.team).order_by("-pk")[1].pk
    services._as_superuser(
        f"SET session_replication_role = replica; DELETE FROM lifecycle_auditevent WHERE id = {gone};"
        f" DELETE FROM lifecycle_sealedentry WHERE event_id = {gone}; SET session_replication_role = DEFAULT"
    )
    auditor.export(dock.owner, subject="team shop")
    code, result = auditor.verify()
    assert (code, "are missing" in result["first_bad"]["problem"]) == (1, True)


def test_export_contains_only_what_the_reader_can_read(log, write, admin, auditor):
    dock = make_dock()
    write(3)  # of no team
    log.seal()
    auditor.export(dock.owner)
    with zipfile.ZipFile(auditor.file) as archive:
        rows = [json.loads(line) for line in archive.read("entries.jsonl").splitlines()]
        assert not any(name.startswith("log/") for name in archive.namelist())
    assert {row["event"]["team"] for row in rows} <= {dock.team.pk}
    assert auditor.verify()[0] == 0
    with pytest.raises(NotPermitted):
        export(dock.outsider, Wanted())
    with pytest.raises(Malformed):
        export(admin, Wanted(subject="what"))
    with pytest.raises(NotFound):
        export(admin, Wanted(subject="team none"))
    with pytest.raises(Conflict, match="more than 2"):
        export(admin, Wanted(), limit=2)
    assert AuditEvent.objects.filter(action="audit.exported").count() == 1


@pytest.mark.parametrize(
    ("foreign", "absent", "own"),
    [
        ("team other", "team none", "team shop"),
        ("person far", "person none", "person {owner}"),
        ("environment other/production", "environment none/production", "environment shop/production"),
    ],
)
def test_foreign_subjects_look_like_absent_ones(foreign, absent, own, log, write, auditor):  # noqa: PLR0917 -- fixtures
    dock = make_dock()
    Team.objects.create(slug="other", name="Other")
    write(actor=User.objects.create(username="far"))  # an event of no team
    with transaction.atomic():
        audit.record(Action.TEAM_CREATED, actor=dock.owner, team=dock.team)
    log.seal()
    said = set()
    for subject in (foreign, absent):
        with pytest.raises(NotFound) as refused:
            export(dock.owner, Wanted(subject=subject))
        said.add(str(refused.value))
    assert len(said) == 1
    auditor.export(dock.owner, subject=own.format(owner=dock.owner.username))
    assert auditor.verify()[0] == 0


def test_parts_that_whoever_passes_the_export_on_left_out_are_missed(whole, admin, auditor):
    auditor.export(admin)

    def leave_out(about: dict, rows: list[dict]) -> None:
        del about["range"], rows[3:7]

    auditor.rewrite(leave_out)
    code, result = auditor.verify()
    assert (code, result["is_selection"], result["logs"][0]["entries"]) == (0, True, 7)
    code, result = auditor.verify("--whole")
    assert (code, result["first_bad"]["problem"]) == (1, "Entries are missing: 3 to 6.")
    auditor.export(admin, subject="person admin")
    code = Pseudonym.objects.get(user=admin).code
    assert auditor.verify("--subject", "person", code)[0] == 0

    def leave_out_first(about: dict, rows: list[dict]) -> None:
        del about["subject"], about["is_from_start"], rows[:2]

    auditor.rewrite(leave_out_first)
    assert auditor.verify()[0] == 0
    exit_code, result = auditor.verify("--subject", "person", code)
    assert (exit_code, f"Numbers 1 to 2 of person {code} are missing." in result["first_bad"]["problem"]) == (1, True)
    exit_code, result = auditor.verify("--subject", "person", "person-0")
    assert (exit_code, result["first_bad"]["problem"]) == (1, "The export has no entry about person person-0.")


def test_events_at_the_ends_of_a_day_are_missed(log, write, admin, auditor, services):
    first = write(6, actor=admin)[0]
    services._as_superuser(
        "SET session_replication_role = replica; UPDATE lifecycle_auditevent SET at = at - interval '1 day'"
        f" WHERE id < {first.pk + 3}; SET session_replication_role = DEFAULT"
    )
    log.seal()  # the first entry, three of yesterday, three of today, and that the log began
    today = last_checkpoint(current_origin()).at.date()
    for days, entries in ((0, 5), (-1, 5), (-2, 2), (1, 1)):  # each with what is next to it
        day = today + timedelta(days=days)
        auditor.export(admin, since=day, until=day)
        code, result = auditor.verify("--days", str(day), str(day))
        assert (code, result["entries"], result["problems"]) == (0, entries, []), days
    assert auditor.verify("--days", str(today), str(today))[0] == 1  # it is of tomorrow
    gone = first.pk + 3
    services._as_superuser(
        f"SET session_replication_role = replica; DELETE FROM lifecycle_auditevent WHERE id = {gone};"
        " SET session_replication_role = DEFAULT"
    )
    auditor.export(admin, since=today, until=today)
    code, result = auditor.verify()
    found = [(row["index"], row["problem"]) for row in result["problems"]]
    assert code == 1
    assert (4, "It is of these days too, so entries next to it may be missing.") in found


def test_key_must_be_named(whole, admin, auditor, capsys):
    auditor.export(admin)
    assert main([str(auditor.file)]) == 2
    assert "Name the key that you trust" in capsys.readouterr().err
    assert main([str(auditor.file), "--trust-export-key"]) == 0
    assert "of 11 entries (0 to 10). Newest event: 2" in capsys.readouterr().out


@pytest.mark.parametrize("is_forged_first", [True, False])
def test_two_checkpoints_of_one_size_are_both_compared(is_forged_first, whole, admin, auditor):
    kept = auditor.keep_checkpoint()
    origin = current_origin()
    forged = Checkpoint(origin.name, 8, bytes(32)).signed(load_or_make(whole.key_file))
    kept.write_text(LogCheckpoint.objects.get(size=8).note)
    other = kept.with_name("forged")
    other.write_text(forged)
    auditor.older = [other, kept] if is_forged_first else [kept, other]
    auditor.export(admin)
    code, result = auditor.verify()
    assert (code, [row["problem"] for row in result["problems"]]) == (1, [
        "The log does not begin with your checkpoint of size 8.",
        "Two of your checkpoints have the size 8 and different roots: the log was forked.",
    ])  # fmt: skip


def test_period_and_kept_checkpoint(whole, write, admin, auditor):
    auditor.keep_checkpoint()
    write(2)
    whole.seal()
    day = last_checkpoint(current_origin()).at.date()
    auditor.export(admin, since=day, until=day)
    code, result = auditor.verify()
    assert (code, "--since-size 11" in result["first_bad"]["problem"]) == (1, True)
    auditor.export(admin, since=day, until=day, since_size=11)
    code, result = auditor.verify()
    assert (code, result["entries"]) == (0, 13)  # also the first one, which is no event, as the neighbour of the next


def test_pages_and_api_send_export_and_proof(whole, admin, auditor):
    client = Client()
    client.force_login(admin, backend=BACKEND)
    for path in ("/audit/sealed-export/", "/api/v1/audit-events/sealed-export/"):
        answer = client.get(path, {"subject": "person admin"})
        assert answer["Content-Type"] == "application/zip"
        auditor.file.write_bytes(b"".join(answer.streaming_content))
        code, result = auditor.verify()
        assert (code, result["entries"]) == (0, 9)
    event = SealedEntry.objects.get(index=5).event_id
    texts = {client.get(path).content for path in (f"/audit/{event}/proof/", f"/api/v1/audit-events/{event}/proof/")}
    (text,) = texts
    assert text.startswith(b"c2sp.org/tlog-proof@v1\nindex 5\n")
    assert text.endswith(last_checkpoint(current_origin()).note.encode())
    unsealed = AuditEvent.objects.filter(action="audit.exported").first()
    assert client.get(f"/api/v1/audit-events/{unsealed.pk}/proof/").status_code == 409
    assert client.get("/audit/sealed-export/", {"since": "2026-12-02", "until": "2026-12-01"}).status_code == 400


def test_verifier_runs_alone_and_refuses_other_files(whole, admin, auditor, tmp_path):
    """It runs from a folder with nothing else of ours, without site settings."""
    auditor.export(admin)
    shutil.copytree(ROOT / "gravingdock_verify", tmp_path / "alone" / "gravingdock_verify")

    def run(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gravingdock_verify", str(path), "--trust-export-key"],
            cwd=tmp_path / "alone", env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run(auditor.file)
    assert (done.returncode, "OK: 11 entries" in done.stdout) == (0, True), done.stdout + done.stderr
    (tmp_path / "other.zip").write_bytes(b"PK")
    done = run(tmp_path / "other.zip")
    assert (done.returncode, "is not an export" in done.stderr) == (2, True)


def test_command_writes_exports_of_any_size(whole, admin, auditor):
    from django.core.management import call_command
    from django.core.management.base import CommandError

    call_command("export_audit_log", str(auditor.file), stdout=io.StringIO())
    assert auditor.verify()[0] == 0
    with pytest.raises(CommandError, match="exists"):
        call_command("export_audit_log", str(auditor.file))


@pytest.mark.skipif(not SUMDB_CHECK, reason="SUMDB_CHECK does not name the program of tests/programs/sumdb_check")
def test_go_accepts_the_log_and_finds_a_changed_byte(whole, write, admin, auditor):
    auditor.keep_checkpoint()
    write(600, actor=admin)
    whole.seal()
    auditor.export(admin)
    with zipfile.ZipFile(auditor.file) as archive:
        archive.extractall(auditor.folder / "all")
    place = auditor.folder / "all" / "log" / "1"

    def run(*words: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([SUMDB_CHECK, *map(str, words)], capture_output=True, text=True, check=False)

    done = run(place, auditor.older[0])
    assert (done.returncode, done.stdout.strip()) == (0, "611"), done.stderr
    assert run(whole.folder / "1").returncode != 0  # the folder of files has no `key`
    bundle = place / "tile" / "entries" / "001"
    content = bytearray(bundle.read_bytes())
    content[40] ^= 1
    bundle.write_bytes(content)
    done = run(place)
    assert (done.returncode, "entry 256: changed" in done.stderr) == (1, True)
