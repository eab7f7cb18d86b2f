"""The files of the log at `/log/`: who reads which."""

from __future__ import annotations

from django.test import Client

from accounts.models import Role, User
from lifecycle.authority.models import RoleGrant
from lifecycle.sealed_log.queries import current_origin, last_checkpoint
from tests.factories.shop import make_dock

BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
ALL = ("checkpoint", "key", "tile/0/000.p/2", "1/checkpoint", "1/key", "1/tile/0/000.p/2")
ENTRIES = ("tile/entries/000.p/2", "1/tile/entries/000.p/2")


def reader(user: User) -> Client:
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def test_auditors_read_hashes_and_only_admins_read_entries(log, write):
    dock = make_dock()
    viewer = User.objects.create(username="viewer")
    RoleGrant.objects.create(user=viewer, team=dock.team, role=Role.objects.get(slug="viewer"))
    admin = User.objects.create(username="admin", is_superuser=True)
    assert reader(admin).get("/log/checkpoint").status_code == 404  # nothing is sealed yet
    write()
    log.seal()
    for path in ALL:
        assert reader(viewer).get(f"/log/{path}").status_code == 403
        assert Client().get(f"/log/{path}").status_code == 401
        for user in (dock.owner, admin):
            answer = reader(user).get(f"/log/{path}")
            assert answer.status_code == 200, path
    for path in ENTRIES:
        assert reader(dock.owner).get(f"/log/{path}").status_code == 403
        assert reader(admin).get(f"/log/{path}").status_code == 200


def test_files_are_those_on_the_disk(log, write):
    write()
    log.seal()
    write()
    log.seal()
    client = reader(User.objects.create(username="admin", is_superuser=True))
    place = log.folder / "1"
    files = [path for path in place.rglob("*") if path.is_file()]
    assert len(files) == 3
    for path in files:
        answer = client.get(f"/log/{path.relative_to(place)}")
        assert answer.content == path.read_bytes()
        assert ("immutable" in answer["Cache-Control"]) is (path.name != "checkpoint")
    assert client.get("/log/checkpoint").content.decode() == last_checkpoint(current_origin()).note
    assert client.get("/log/tile/0/000.p/1").content == client.get("/log/tile/0/000.p/2").content[:32]
    for path in ("tile/0/000", "tile/0/000.p/9", "tile/1/000", "tile/entries/000", "tile/x", "2/checkpoint", "other"):
        assert client.get(f"/log/{path}").status_code == 404, path
    assert client.post("/log/checkpoint").status_code == 405
