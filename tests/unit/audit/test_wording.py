"""Audit events in words: no note shows a stored value as code."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import get_type_hints

import pytest

from lifecycle.audit.details_of_actions import DETAILS_OF
from lifecycle.pages.audit import wording

SAMPLES = {str: "sample", int: 3, bool: True, float: 30.0}


def sample(kind):
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        at = {"expires_at": "2026-11-28T10:00:00+00:00"}
        return kind(**{field.name: at.get(field.name) or sample(hints[field.name]) for field in fields(kind)})
    if kind in SAMPLES:
        return SAMPLES[kind]
    return {"state": "open"} if str(kind).startswith("dict") else ("image.scan",)


def event(details):
    return SimpleNamespace(
        details=details, reason="", subject_kind="job", subject_id=4, repository="", environment="", team=None
    )


@pytest.mark.parametrize("details", sorted(set(DETAILS_OF.values()), key=lambda kind: kind.__name__))
def test_every_detail_is_said_in_words(details):
    text = wording.note_of(event(sample(details).as_json()))
    assert not [code for code in ("True", "False", "None", "{", "[", "'", "_", "T10:00") if code in text], text


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"expires_at": "never"}, {"expires_at": "2026-12-01T10:00:00+00:00"},
         ["expiry changed from never to 01 Dec 2026 10:00 UTC"]),
        ({"verbs": ["a", "b"]}, {"verbs": ["b", "c"]}, ["added c, removed a"]),
        (["1.*"], ["1.*", "2.*"], ["protected tags: added 2.*"]),
        ({"name": "x"}, None, ["name was x"]),
        (None, {"name": "x"}, ["name: x"]),
        ({"state": "open"}, None, ["state was open"]),
        (None, None, []),
    ],
)  # fmt: skip
def test_a_change_is_said_as_a_difference(before, after, expected):
    assert wording.differences(before, after) == expected
