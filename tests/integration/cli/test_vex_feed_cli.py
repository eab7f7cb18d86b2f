"""`gravingdock vex-feed`: add a feed, trust it as a second person, run and remove it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lifecycle.vex.models import VexFeed
from tests.factories.people import person

pytestmark = pytest.mark.django_db


def test_feed_is_added_trusted_run_and_removed(dock: Any, run: Any, tmp_path: Path) -> None:
    guard, other = person("guard", dock.team, "security"), person("other", dock.team, "security")
    add = ("vex-feed", "add", "vendor", "https://vendor.example/vex/", "--team", "shop", "--for", "pkg:deb/debian/")
    code, out, said = run(guard, *add, "--every", "6", "--json")
    made = json.loads(out)
    assert (code, made["speaks_for"], made["every_hours"], said) == (0, ["pkg:deb/debian/"], 6, "")
    assert "vendor" in run(guard, "vex-feed", "list")[1]
    key = tmp_path / "key.pem"
    key.write_text("no key")
    other_add = ("vex-feed", "add", "b", "https://vendor.example/b.json", "--team", "shop")
    code, _, said = run(guard, *other_add, "--key", str(key))
    assert (code, "public key" in said) == (1, True)
    assert run(guard, *other_add, "--key", str(tmp_path / "no"))[0] == 2
    code, _, said = run(guard, "vex-feed", "trust", "vendor")
    assert (code, "Someone else" in said) == (1, True)
    assert run(other, "vex-feed", "trust", "vendor", "--reason", "ours")[0] == 0
    assert run(guard, "vex-feed", "distrust", str(made["id"]))[0] == 0
    assert run(guard, "vex-feed", "sync", "vendor", "--accept-smaller")[0] == 0
    assert run(guard, "vex-feed", "sync", "absent")[0] == 1
    assert run(guard, "vex-feed", "remove", "vendor")[0] == 0
    assert not VexFeed.objects.exists()
