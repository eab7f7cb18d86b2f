"""`gravingdock release`: what people read in a terminal."""

from __future__ import annotations

import json

import pytest

from lifecycle.promotion import release_sets
from lifecycle.promotion.release_sets import Wanted
from tests.factories import dock as rows

pytestmark = pytest.mark.django_db


def test_show_prints_no_empty_rows(dock, run):
    wanted = []
    for name in ("one", "two"):
        place = rows.repository(f"shop/{name}", dock.team)
        rows.push(place, rows.image(name), "1.0")
        wanted.append(Wanted(place, tag="1.0"))
    made = release_sets.request_set(wanted, dock.dev, actor=dock.requester, reason="release")
    code, out, _ = run(dock.requester, "release", "show", f"RS-{made.pk}")
    lines = out.splitlines()
    assert code == 0
    pairs = lines[: next(number for number, line in enumerate(lines) if line.startswith("PROMOTION"))]
    assert [line for line in pairs if line.strip() and len(line.split(None, 1)) < 2] == []
    assert any(line.split() == ["Environment", "dev"] for line in pairs)
    assert not any(line.startswith(("Failure", "Votes")) for line in pairs)
    assert all(name in out for name in ("shop/one", "shop/two"))
    whole = json.loads(run(dock.requester, "release", "show", made.pk, "--json")[1])
    assert (whole["votes"], whole["failure"]) == ([], "")  # machines get every field
