"""Signed votes are checked without Django: a program outside of Gravingdock uses these two files and `cryptography`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
sys.modules["django"] = None  # an import would fail
from lifecycle.signatures.votes import BadVote, check_record, check_vote, statement_of, Ballot
assert [row.problem for row in check_record({"approvals": [{"by": "kim"}]}, digest="sha256:1")] == ["It is not signed."]
try:
    check_vote({"statement": "{}"})
except BadVote as error:
    print(error)
print(statement_of(site="localhost", voter="kim", environment="shop/production", nonce="n", ballots=[
    Ballot(2, "shop/web", "sha256:b", "sha256:e"), Ballot(1, "shop/api", "sha256:a", "sha256:e")]).decode())
"""
CANONICAL = (
    '{"ballots":[{"digest":"sha256:a","evaluation":"sha256:e","promotion":1,"repository":"shop/api"},'
    '{"digest":"sha256:b","evaluation":"sha256:e","promotion":2,"repository":"shop/web"}],"decision":"approve",'
    '"environment":"shop/production","nonce":"n","site":"localhost","type":"https://gravingdock.dev/vote/v1",'
    '"voter":"kim"}'
)


def test_checks_need_no_django_and_statements_have_one_form() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["The signed vote lacks a part.", CANONICAL]
