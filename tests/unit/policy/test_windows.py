"""Freeze and allow windows: by examples, and against a check that knows only the wall clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.policy.windows import Kind, Opening, Window, WindowProblem, check, occurrences, state_at

BERLIN = "Europe/Berlin"


def window(starts: str, hours: float, rule: str = "", *, kind: Kind = Kind.FREEZE, **more: str) -> Window:
    values = {"name": "weekend", "level": "site", "zone": BERLIN} | more
    return Window(
        kind=kind, starts=datetime.fromisoformat(starts), duration=timedelta(hours=hours), rule=rule, **values
    )


def at(text: str) -> datetime:
    """Return a local time in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN))


WORK = window("2026-01-05T08:00", 8, "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH", kind=Kind.ALLOW, name="work")
SALE = window("2026-11-26T16:00", 88, name="sales weekend")


@pytest.mark.parametrize(
    ("windows", "moment", "wanted"),
    [
        ([], "2026-11-27T12:00", Opening(True)),
        ([SALE], "2026-11-26T15:59", Opening(True)),
        ([SALE], "2026-11-26T16:00", Opening(False, "Freeze: sales weekend.", at("2026-11-30T08:00"))),
        ([SALE], "2026-11-30T08:00", Opening(True)),
        ([WORK], "2026-11-25T15:59", Opening(True)),
        ([WORK], "2026-11-26T16:00", Opening(False, "Outside the allowed hours of the site.", at("2026-11-30T08:00"))),
        ([WORK, SALE], "2026-11-26T16:30", Opening(False, "Freeze: sales weekend.", at("2026-11-30T08:00"))),
    ],
)
def test_state(windows: list[Window], moment: str, wanted: Opening) -> None:
    assert state_at(windows, at(moment)) == wanted


def test_freeze_wins_over_allowed_hours() -> None:
    freeze = window("2026-11-24T00:00", 34, name="audit")  # Tuesday, until Wednesday 10:00
    assert state_at([WORK, freeze], at("2026-11-24T09:00")) == Opening(False, "Freeze: audit.", at("2026-11-25T10:00"))


def test_freeze_within_allowed_hours_ends_the_next_opening() -> None:
    """What was open before the moment is no opening."""
    freeze = window("2026-11-24T09:00", 1, name="audit")
    assert state_at([WORK, freeze], at("2026-11-24T09:30")) == Opening(False, "Freeze: audit.", at("2026-11-24T10:00"))


def test_each_level_needs_its_own_allowed_hours() -> None:
    """A team can only tighten what the site allows."""
    team = window("2026-01-06T10:00", 12, "FREQ=WEEKLY;BYDAY=TU,SA", kind=Kind.ALLOW, level="team")
    closed = state_at([WORK, team], at("2026-11-28T11:00"))  # Saturday: the team allows it, the site does not
    assert closed == Opening(False, "Outside the allowed hours of the site.", at("2026-12-01T10:00"))
    assert state_at([WORK, team], at("2026-12-01T10:00")).is_open


def test_two_windows_of_one_level_allow_either() -> None:
    friday = window("2026-01-09T08:00", 2, "FREQ=WEEKLY;BYDAY=FR", kind=Kind.ALLOW)
    assert state_at([WORK, friday], at("2026-11-27T09:00")).is_open


def test_freeze_without_end_in_sight_names_no_opening() -> None:
    always = window("2026-01-01T00:00", 24, "FREQ=DAILY")
    assert state_at([always], at("2026-05-01T12:00")) == Opening(False, "Freeze: weekend.", None)


@pytest.mark.parametrize("until", ["20261104", "20261104T080000", "20261105T075959"])
def test_last_start_can_be_a_date_or_a_time(until: str) -> None:
    freeze = window("2026-11-02T08:00", 1, f"FREQ=DAILY;UNTIL={until}")
    days = [start.day for start, _ in occurrences(freeze, at("2026-11-01T00:00"), at("2026-11-10T00:00"))]
    assert days == [2, 3, 4]


def test_wall_clock_times_stay_when_clocks_change() -> None:
    night = window("2026-10-20T22:00", 8, "FREQ=DAILY")
    ((start, end),) = occurrences(night, at("2026-10-24T21:00"), at("2026-10-25T12:00"))
    assert (start, end) == (at("2026-10-24T22:00"), at("2026-10-25T06:00"))
    assert end - start == timedelta(hours=9)  # the night in which summer time ends


def test_hour_that_occurs_twice_is_closed_twice() -> None:
    freeze = window("2026-10-25T02:00", 1)
    ((start, end),) = occurrences(freeze, at("2026-10-24T00:00"), at("2026-10-26T00:00"))
    assert (start, end - start) == (datetime(2026, 10, 25, 0, 0, tzinfo=UTC), timedelta(hours=2))
    allowed = window("2026-10-25T02:00", 1, kind=Kind.ALLOW)
    ((start, end),) = occurrences(allowed, at("2026-10-24T00:00"), at("2026-10-26T00:00"))
    assert (start, end - start) == (datetime(2026, 10, 25, 1, 0, tzinfo=UTC), timedelta(hours=1))  # the second one


def test_hour_that_does_not_occur_is_closed_around_it() -> None:
    freeze = window("2026-03-29T02:30", 0.25)
    ((start, end),) = occurrences(freeze, at("2026-03-28T00:00"), at("2026-03-30T00:00"))
    assert (start, end) == (at("2026-03-29T01:30"), at("2026-03-29T03:45"))


@pytest.mark.parametrize(
    ("starts", "hours"),
    [
        ("2026-10-25T02:15", 0.25),  # in the hour that occurs twice: it would end before it starts
        ("2026-03-29T02:30", 1),  # from an hour that does not occur: it would end as it starts
    ],
)
def test_allowed_time_that_clocks_take_away_is_none(starts: str, hours: float) -> None:
    allowed = window(starts, hours, kind=Kind.ALLOW)
    assert occurrences(allowed, at("2026-01-01T00:00"), at("2026-12-01T00:00")) == []
    assert len(occurrences(window(starts, hours), at("2026-01-01T00:00"), at("2026-12-01T00:00"))) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"zone": "Mars/Base"}, "Unknown time zone"),
        ({"duration": timedelta(0)}, "must end after"),
        ({"duration": timedelta(days=367)}, "366 days"),
        ({"starts": datetime.fromisoformat("1900-01-01")}, "1990 to 2200"),
        ({"rule": "FREQ=SECONDLY"}, "Start the repetition"),
        ({"rule": "BYDAY=MO"}, "Start the repetition"),
        ({"rule": "FREQ=DAILY;COUNT=3"}, "Cannot use COUNT=3"),
        ({"rule": "FREQ=DAILY;BYSECOND=1,2"}, "Cannot use BYSECOND"),
        ({"rule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}, "Use FREQ=YEARLY"),
        ({"rule": "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=2"}, "Cannot use BYSETPOS"),
        ({"rule": "FREQ=DAILY;FREQ=DAILY"}, "each once"),
        ({"rule": "FREQ=DAILY;INTERVAL=0"}, "INTERVAL"),
        ({"rule": "FREQ=DAILY;UNTIL=20261231T000000Z"}, "without Z"),
        ({"rule": "FREQ=DAILY;UNTIL=20269931"}, "cannot be read"),
        ({"rule": "FREQ=WEEKLY;BYDAY=XX"}, "cannot be read"),
        ({"rule": "FREQ=MONTHLY;BYMONTHDAY=x"}, "cannot be read"),
        ({"rule": "FREQ=DAILY;" + "BYDAY=" + "MO," * 100}, "200 characters"),
        ({"rule": "FREQ=DAILY\nDTSTART:20260101T000000"}, "Start the repetition"),
        ({"rule": "FREQ=WEEKLY;BYDAY=MO\nRRULE:FREQ=DAILY"}, "Give one repetition"),
        ({"rule": "FREQ=WEEKLY;BYDAY="}, "Cannot use BYDAY= in"),
        ({"rule": "FREQ=WEEKLY;BYDAY=M\u00d6"}, "Cannot use BYDAY"),
        ({"rule": "FREQ=WEEKLY;"}, "Cannot use an empty part"),
        ({"rule": "FREQ=DAILY;INTERVAL=x"}, "INTERVAL must be 1 to 60"),
        ({"rule": "FREQ=DAILY;INTERVAL=61"}, "INTERVAL must be 1 to 60"),
        ({"rule": "FREQ=WEEKLY;BYMONTHDAY=3"}, "Use FREQ=YEARLY or FREQ=MONTHLY"),
        ({"rule": "FREQ=WEEKLY;BYDAY=" + "MO," * 60 + "MON"}, "200 characters"),
        ({"starts": datetime.fromisoformat("1989-12-31T23:59")}, "1990 to 2200"),
        ({"starts": datetime.fromisoformat("2201-01-01")}, "1990 to 2200"),
        ({"duration": timedelta(days=366, microseconds=1)}, "366 days"),
    ],
)
def test_bad_window_is_refused_with_the_reason(change: dict[str, object], words: str) -> None:
    values = {
        "name": "x",
        "kind": Kind.FREEZE,
        "level": "site",
        "starts": datetime.fromisoformat("2026-01-01"),
        "rule": "",
    }
    good = values | {"duration": timedelta(hours=1), "zone": BERLIN}
    check(Window(**good))  # type: ignore[arg-type]  # mixed values
    with pytest.raises(WindowProblem, match=words):
        check(Window(**(good | change)))  # type: ignore[arg-type]  # mixed values


@pytest.mark.parametrize(
    ("starts", "hours", "rule"),
    [
        ("1990-01-01T00:00", 1, ""),
        ("2200-12-31T23:59", 1, ""),
        ("2026-01-01T00:00", 366 * 24, ""),
        ("2026-01-01T00:00", 1, "FREQ=DAILY;INTERVAL=60"),
        ("2026-01-01T00:00", 1, "RRULE:FREQ=MONTHLY;BYMONTHDAY=3;BYMONTH=5"),
        ("2026-01-01T00:00", 1, "FREQ=WEEKLY;BYDAY=" + "MO," * 60 + "MO"),  # 200 characters
    ],
)
def test_window_at_its_limits_is_accepted(starts: str, hours: float, rule: str) -> None:
    check(window(starts, hours, rule))


@pytest.mark.parametrize(
    "rule", ["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "FREQ=DAILY;UNTIL=20251231", "FREQ=MONTHLY;BYDAY=1MO;BYMONTHDAY=31"]
)
def test_repetition_that_never_occurs_is_refused(rule: str) -> None:
    with pytest.raises(WindowProblem, match="never occurs"):
        check(window("2026-01-01T00:00", 1, rule))
    check(window("2026-01-01T00:00", 1, "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"))


ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC", "Asia/Kathmandu")
# Around the changes of clocks in 2026, and between them.
DAYS = st.dates(date(2026, 3, 1), date(2026, 4, 10)) | st.dates(date(2026, 10, 1), date(2026, 11, 8))
MOMENTS = st.builds(
    lambda day, minute: datetime.combine(day, time(0), tzinfo=UTC) + timedelta(minutes=minute),
    DAYS,
    st.integers(0, 1439),
)
DAILY = st.builds(
    lambda zone, hour, minute, length: Window(
        "daily",
        Kind.FREEZE,
        "site",
        datetime.fromisoformat(f"2026-01-01T{hour:02}:{minute:02}"),
        timedelta(minutes=length),
        zone,
        "FREQ=DAILY",
    ),
    st.sampled_from(ZONES),
    st.integers(0, 23),
    st.sampled_from((0, 30)),
    st.integers(1, 1380),
)


def clock_says_frozen(freeze: Window, moment: datetime) -> bool:
    """Return whether the wall clock of the zone is between start and end, whatever its offset is."""
    local = moment.astimezone(ZoneInfo(freeze.zone)).replace(tzinfo=None)
    return any(
        start <= local < start + freeze.duration
        for start in (datetime.combine(local.date() - timedelta(days=back), freeze.starts.time()) for back in (0, 1))
    )


@settings(deadline=None)  # machines differ
@given(DAILY, MOMENTS)
def test_daily_freeze_covers_its_wall_clock_hours(freeze: Window, moment: datetime) -> None:
    """Also where clocks change; then it may cover more, by the hour that was skipped or repeated."""
    is_open = state_at([freeze], moment).is_open
    if clock_says_frozen(freeze, moment):
        assert not is_open
    zone = ZoneInfo(freeze.zone)
    offsets = {(moment + timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in range(-30, 31)}
    if len(offsets) == 1:
        assert is_open is not clock_says_frozen(freeze, moment)


ANY = st.builds(
    lambda daily, kind, level, days: Window(
        daily.name, kind, level, daily.starts, daily.duration, daily.zone, f"FREQ=WEEKLY;BYDAY={','.join(sorted(days))}"
    ),
    DAILY,
    st.sampled_from(Kind),
    st.sampled_from(("site", "team", "environment")),
    st.sets(st.sampled_from(("MO", "TU", "WE", "TH", "FR", "SA", "SU")), min_size=1),
)


@settings(deadline=None)  # machines differ
@given(st.lists(ANY, max_size=4), MOMENTS, st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5))
def test_next_opening_is_the_first(windows: list[Window], moment: datetime, parts: list[float]) -> None:
    now = state_at(windows, moment)
    if now.opens_at is None:
        assert now.is_open or now.why
        return
    assert not now.is_open
    assert now.opens_at > moment
    assert state_at(windows, now.opens_at).is_open
    step = timedelta(microseconds=1)
    between = [moment + (now.opens_at - moment - step) * part for part in parts]
    for earlier in [now.opens_at - step, *between]:
        assert not state_at(windows, earlier).is_open


@settings(deadline=None)  # machines differ
@given(st.lists(ANY, max_size=4), ANY, MOMENTS)
def test_freeze_never_opens_anything(windows: list[Window], more: Window, moment: datetime) -> None:
    freeze = Window(more.name, Kind.FREEZE, more.level, more.starts, more.duration, more.zone, more.rule)
    if not state_at(windows, moment).is_open:
        assert not state_at([*windows, freeze], moment).is_open
