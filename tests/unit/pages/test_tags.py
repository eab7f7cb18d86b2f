"""The small parts: what they say, and that nothing from outside becomes markup."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from freezegun import freeze_time

from lifecycle.pages.templatetags import gravingdock as tags


def test_chip_state_says_the_word_and_the_blocker() -> None:
    assert "Open: 1 pending" in tags.chip_state("open", "Open: 1 pending")
    assert "Succeeded" in tags.chip_state("succeeded")


def test_chip_state_shows_an_unheard_state_as_it_is() -> None:
    assert "Half done" in tags.chip_state("half_done")


@pytest.mark.parametrize("text", ["<b>x</b>", '"><script>'])
def test_text_from_outside_stays_text(text: str) -> None:
    for made in (tags.chip_tag(text), tags.command(text), tags.digest(text), tags.parts_bar([("own", text, 1)], text)):
        assert text not in made


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 23, 22, 0, tzinfo=UTC), "2 h ago"),
        (datetime(2026, 11, 27, 0, 0, tzinfo=UTC), "in 3 d"),
        (datetime(2026, 11, 23, 23, 59, 58, tzinfo=UTC), "just now"),
    ],
)
@freeze_time("2026-11-24 00:00:00")
def test_ago_says_one_unit_and_keeps_the_moment(moment: datetime, text: str) -> None:
    made = tags.ago(moment)
    assert f">{text}<" in made
    assert moment.isoformat(timespec="seconds") in made


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (48_200_000, "48 MB"), (None, "0 B")]
)
def test_size_counts_in_thousands(count: int | None, text: str) -> None:
    assert tags.size(count) == text


def test_gate_marks_put_open_gates_first_and_count_in_words() -> None:
    made = tags.gate_marks(["satisfied", "pending", "satisfied", "unsatisfied"])
    assert made.index("gate-unsatisfied") < made.index("gate-pending") < made.index("gate-satisfied")
    assert "2 of 4 requirements" in made
    assert "1 unsatisfied · 1 pending" in made


def test_the_parts_of_a_progress_bar_fill_it_and_are_said_in_words() -> None:
    bar = tags.progress_bar([("done", "3 done", 3), ("busy", "1 <building>", 1)], "3 done, 1 building, of 4")
    assert 'role="img" aria-label="3 done, 1 building, of 4"' in bar
    assert 'class="done" x="0.00%" width="75.00%"' in bar
    assert 'class="busy" x="75.00%" width="25.00%"' in bar
    assert "url(#hatch-busy)" in bar
    assert "1 &lt;building&gt;" in bar
    assert "NaN" not in tags.progress_bar([], "nothing")


def test_a_length_of_time_is_said_in_one_unit() -> None:
    assert [tags.span(seconds) for seconds in (None, 0.4, 59, 61, 7300, 90_000)] == [
        "·", "0 s", "59 s", "1 min", "2 h", "1 d",
    ]  # fmt: skip
