"""Our order of versions against the tools of the ecosystems: real versions, and small changes of them."""

from __future__ import annotations

import json
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lifecycle.versions import check, compare, version_key
from lifecycle.versions.ecosystems import SCHEMES, split_ecosystem
from tests.native_versions import missing, orders

SHARED = Path(__file__).parents[4] / "shared" / "data" / "osv"
DEMO = Path(__file__).parents[3] / "lifecycle" / "advisories" / "data" / "demo"
ENDS = {
    "dpkg": ("~", "~rc1", "+b1", "-1", ".0", "a", "+deb12u1"),
    "pep440": (".0", "rc1", ".dev1", ".post1", "+local.1", "a1"),
    "npm": ("-rc.1", "-rc.01", "+build", "-0", "-x"),
    "semver": ("-rc.1", "+build.1", "-0", "-alpha", "-alpha.1"),
    "go": ("-rc.1", "+incompatible", "-0.20240101000000-abcdefabcdef", "-alpha"),
}
PREFIXES = {"dpkg": ("1:", "0:", ""), "pep440": ("1!", "v", ""), "npm": ("v", "")}
SIZE = 400  # versions of one scheme in one group: about 80,000 pairs


def versions_of(scheme: str) -> list[str]:
    """Return versions of real records, with changes of some; always the same ones."""
    chance = random.Random(scheme)
    found: set[str] = set()
    for root in (DEMO, SHARED):
        for archive in sorted(root.glob("*/all.zip")):
            if SCHEMES.get(archive.parent.name) != scheme:
                continue
            with zipfile.ZipFile(archive) as opened:
                names = sorted(opened.namelist())
                for name in chance.sample(names, min(60, len(names))):
                    found |= texts_of(json.loads(opened.read(name)), scheme)
    real = chance.sample(sorted(found), min(SIZE // 2, len(found)))
    changed = [f"{chance.choice(PREFIXES.get(scheme, ('',)))}{text}{chance.choice(ENDS[scheme])}" for text in real]
    bumped = [re.sub(r"\d+(?=\D*$)", lambda part: str(int(part[0]) + 1), text) for text in real[::3]]
    return list(dict.fromkeys([*real, *changed, *bumped, "1.0", "1.0.0", "01.0.0", "1", "", "x"]))[:SIZE]


def texts_of(record: dict[str, Any], scheme: str) -> set[str]:
    out: set[str] = set()
    for entry in record.get("affected", []):
        if SCHEMES.get(split_ecosystem(entry.get("package", {}).get("ecosystem", ""))[0]) != scheme:
            continue
        for item in entry.get("ranges", []):
            if item["type"] != "GIT":
                out |= {text for event in item["events"] for text in event.values()}
        out |= set(entry.get("versions") or [])
    return out - {"0", "*"}


def is_valid(scheme: str, text: str) -> bool:
    try:
        check(scheme, text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("scheme", sorted(ENDS))
def test_our_order_is_that_of_the_tool(scheme: str) -> None:
    if reason := missing()[scheme]:
        pytest.skip(reason)
    texts = versions_of(scheme)
    if len(texts) < 20:
        pytest.skip("no feed of this ecosystem on this machine")
    ranks = orders()[scheme]({"all": texts})["all"]
    known = [text for text in texts if text in ranks and is_valid(scheme, text)]
    assert len(known) > len(texts) / 2
    assert [text for text in texts if text in ranks and not is_valid(scheme, text)] == []  # all that the tool takes
    wrong = [
        (left, right)
        for number, left in enumerate(known)
        for right in known[number:]
        if compare(scheme, left, right) != (ranks[left] > ranks[right]) - (ranks[left] < ranks[right])
    ]
    assert wrong == []
    keys = sorted(known, key=lambda text: version_key(scheme, text))
    assert [ranks[text] for text in keys] == sorted(ranks[text] for text in known)
