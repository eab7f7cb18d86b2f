"""Trusted sources with `ETag` and `If-Match`, and from a YAML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from accounts.models import User
from lifecycle.trust.models import TrustedSource
from tests.clients import Caller

pytestmark = pytest.mark.django_db
BODY = {"name": "hub", "places": ["docker.io/library/*"], "is_site_wide": True, "needs_signature": False}
YAML = """
- name: hub            # with a comment, as JSON has none
  places: [docker.io/library/*]
  is_site_wide: true
  needs_signature: false
  valid_from: 2026-12-01T00:00:00Z
"""


@pytest.fixture
def admin(db: Any) -> User:
    return User.objects.create_superuser("root")


def naming(admin: User, etag: str) -> Caller:
    caller = Caller(admin)
    caller.headers = {**caller.headers, "If-Match": etag}
    return caller


def test_change_and_retirement_name_the_version_that_was_read(admin: User) -> None:
    made = Caller(admin).post("trusted-sources/", BODY)
    where = f"trusted-sources/{made.json()['id']}/"
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
    assert Caller(admin).get(where).headers["ETag"] == '"1"'
    changed = naming(admin, '"1"').put(where, BODY | {"description": "first"})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert naming(admin, '"1"').put(where, BODY | {"description": "second"}).status_code == 412
    assert Caller(admin).put(where, BODY | {"description": "third", "revision": 1}).status_code == 412
    assert naming(admin, "two").put(where, BODY).status_code == 400
    assert naming(admin, '"1"').delete(where).status_code == 412
    row = TrustedSource.objects.get()
    assert (row.description, row.retired_at) == ("first", None)
    assert naming(admin, '"2"').delete(where).status_code == 204
    assert TrustedSource.objects.get().retired_at is not None


def test_file_is_yaml_or_json(admin: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sources"
    for text, result in ((YAML, "created"), (json.dumps([BODY | {"valid_from": "2026-12-01T00:00:00Z"}]), "unchanged")):
        file.write_text(text)
        call_command("import_trusted_sources", str(file), actor="root")
        assert capsys.readouterr().out == f"hub: {result}\n"
    assert TrustedSource.objects.get().valid_from.isoformat() == "2026-12-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- name: [", "sources"),
        ("name: hub", "must hold a list"),
        (YAML.replace("00:00:00Z", "00:00:00"), "add the time zone"),
        (YAML.replace("T00:00:00Z", ""), "add the time zone"),
        ("- !!python/object/apply:os.getcwd []", "sources"),
    ],
)
def test_file_that_cannot_be_read_is_refused(text: str, problem: str, admin: User, tmp_path: Path) -> None:
    file = tmp_path / "sources"
    file.write_text(text)
    with pytest.raises(CommandError, match=problem):
        call_command("import_trusted_sources", str(file), actor="root")
    assert not TrustedSource.objects.exists()
