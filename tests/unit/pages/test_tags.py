"""Template tags: their text, and escaping of untrusted input."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from freezegun import freeze_time

from lifecycle.pages.templatetags import gravingdock as tags


def test_state_chip_shows_given_text_or_state_name() -> None:
    assert "Open: 1 pending" in tags.chip_state("open", "Open: 1 pending")
    assert "Succeeded" in tags.chip_state("succeeded")


def test_state_chip_shows_unknown_state_as_text() -> None:
    assert "Half done" in tags.chip_state("half_done")


def test_act_button_is_disabled_for_a_reason() -> None:
    button = tags.act_button("lifecycle:vex-approve", 7, "check", "Approve", None, css="btn-primary")
    assert button.startswith('<button class="btn btn-primary" formaction="/vex/7/approve/"><svg')
    assert " disabled>" in tags.act_button("lifecycle:vex-approve", 7, "check", "Approve", "Not yours.")


@pytest.mark.parametrize("text", ["<b>x</b>", '"><script>'])
def test_untrusted_text_is_escaped(text: str) -> None:
    for html in (tags.chip_tag(text), tags.command(text), tags.digest(text), tags.parts_bar([("own", text, 1)], text)):
        assert text not in html


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 23, 22, 0, tzinfo=UTC), "2 h ago"),
        (datetime(2026, 11, 27, 0, 0, tzinfo=UTC), "in 3 d"),
        (datetime(2026, 11, 23, 23, 59, 58, tzinfo=UTC), "just now"),
    ],
)
@freeze_time("2026-11-24 00:00:00")
def test_ago_shows_one_unit_and_keeps_exact_time(moment: datetime, text: str) -> None:
    html = tags.ago(moment)
    assert f">{text}<" in html
    assert moment.isoformat(timespec="seconds") in html


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (48_200_000, "48 MB"), (None, "0 B")]
)
def test_size_uses_decimal_units(count: int | None, text: str) -> None:
    assert tags.size(count) == text


def test_gate_marks_put_unsatisfied_gates_first_and_show_counts() -> None:
    html = tags.gate_marks(["satisfied", "pending", "satisfied", "unsatisfied"])
    assert html.index("gate-unsatisfied") < html.index("gate-pending") < html.index("gate-satisfied")
    assert "2 of 4 requirements" in html
    assert "1 unsatisfied · 1 pending" in html


def test_progress_bar_has_width_and_text_of_each_part() -> None:
    bar = tags.progress_bar([("done", "3 done", 3), ("busy", "1 <building>", 1)], "3 done, 1 building, of 4")
    assert 'role="img" aria-label="3 done, 1 building, of 4"' in bar
    assert 'class="done" x="0.00%" width="75.00%"' in bar
    assert 'class="busy" x="75.00%" width="25.00%"' in bar
    assert "url(#hatch-busy)" in bar
    assert "1 &lt;building&gt;" in bar
    assert "NaN" not in tags.progress_bar([], "nothing")


def test_span_shows_one_unit() -> None:
    assert [tags.span(seconds) for seconds in (None, 0.4, 59, 61, 7300, 90_000)] == [
        "·", "0 s", "59 s", "1 min", "2 h", "1 d",
    ]  # fmt: skip
