"""What the role editor and the reference say of verbs that nothing asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from accounts.verbs import NOT_CHECKED_YET, Verb

ROOT = Path(__file__).parents[3]
# Where verbs are listed, named in words, or shown; and the one check that only Gravingdock itself ever passes.
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
def test_a_verb_is_asked_for_or_said_not_to_be(verb, code):
    assert (f"Verb.{verb.name}" in code) is (verb not in NOT_CHECKED_YET)
