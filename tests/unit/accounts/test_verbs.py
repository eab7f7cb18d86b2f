"""The verbs marked as not checked yet are exactly those that no code checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from accounts.verbs import NOT_CHECKED_YET, Verb

ROOT = Path(__file__).parents[3]
# Files that list, label or show verbs, and the one check that only Gravingdock itself passes.
NO_CHECK = {
    "lifecycle/authority/constants.py",
    "lifecycle/pages/authority/views/roles.py",
    "lifecycle/sbom/handlers.py",
}


@pytest.fixture(scope="module")
def code():
    files = (path for path in (ROOT / "lifecycle").rglob("*.py") if "migrations" not in path.parts)
    return "\n".join(path.read_text() for path in files if str(path.relative_to(ROOT)) not in NO_CHECK)


@pytest.mark.parametrize("verb", list(Verb))
def test_verb_is_checked_or_marked_as_not_checked_yet(verb, code):
    assert (f"Verb.{verb.name}" in code) is (verb not in NOT_CHECKED_YET)
