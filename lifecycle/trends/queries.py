"""Trends that a reader can see: of one repository, of a team, or of all teams that they see as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.covers import whole_teams
from lifecycle.authority.queries import repositories_visible_to, teams_visible_to
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.trends.models import COUNTED, TrendFact

DAYS: Final = (30, 90, 365)
_CARRIED_MAX: Final = timedelta(days=60)  # a repository has a fact at least every 30 days


@dataclass(frozen=True, slots=True)
class Point:
    """The counts at the end of one day, and the number of findings fixed that day."""

    day: date
    counts: Mapping[str, int]
    fixed: int

    @property
    def total(self) -> int:
        """All open findings."""
        return sum(self.counts[name] for name in ("critical", "high", "medium", "low", "unknown"))


@dataclass(frozen=True, slots=True)
class Series:
    """One point for each day since the first fact, what was fixed, and the median of the days that it took."""

    points: list[Point]
    fixed: int
    median_days: float | None  # None: nothing was fixed


def series_for(actor: User, today: date, *, team: str = "", repository: str = "", days: int = DAYS[1]) -> Series:
    """Return the trend of a repository, a team, or of all teams whose repositories `actor` can all see.

    Raises NotFound, and Malformed for both or for a wrong number of days. Three queries at most.
    """
    if team and repository:
        raise Malformed("Name a team or a repository, not both.", field="team")
    if days not in DAYS:
        raise Malformed(f"Choose one of {', '.join(map(str, DAYS))} days.", field="days")
    since = today - timedelta(days=days - 1)
    facts = TrendFact.objects.filter(day__gte=since - _CARRIED_MAX, day__lte=today)
    if repository:
        row = repositories_visible_to(actor).filter(name=repository).order_by("pk").first()
        if row is None:
            raise NotFound("Repository not found, or you don't have access.")
        facts = facts.filter(repository=row)
    else:
        whole = whole_teams(actor, Verb.IMAGE_VIEW)
        facts = facts.filter(team__isnull=False)
        if whole is not None:
            facts = facts.filter(team__in=whole)
        if team:
            found = teams_visible_to(actor).filter(slug=team).first()
            if found is None or (whole is not None and found.pk not in whole):
                raise NotFound("Team not found, or you cannot see all its repositories. Choose a repository.")
            facts = facts.filter(team=found)
    fields = ("day", "team_id", "repository_id", "fixed", *COUNTED)
    return _series(facts.order_by("day").values(*fields), since, today)


def _series(rows: Iterable[dict[str, Any]], since: date, today: date) -> Series:
    """Return the points: each source keeps its last counts until its next fact."""
    by_day: dict[date, list[dict[str, Any]]] = {}
    for row in rows:
        by_day.setdefault(row["day"], []).append(row)
    if not by_day:
        return Series([], 0, None)
    latest: dict[tuple[Any, Any], dict[str, Any]] = {}
    points: list[Point] = []
    took: Counter[int] = Counter()
    day = min(by_day)
    while day <= today:
        fixed = 0
        for row in by_day.get(day, ()):
            latest[row["team_id"], row["repository_id"]] = row
            if day >= since:
                took.update({int(number): count for number, count in row["fixed"].items()})
                fixed += sum(row["fixed"].values())
        if day >= since:
            counts = {name: sum(row[name] for row in latest.values()) for name in COUNTED}
            points.append(Point(day, counts, fixed))
        day += timedelta(days=1)
    return Series(points, took.total(), median_of(took))


def median_of(took: Counter[int]) -> float | None:
    """Return the median of {value: how often}; None without values."""
    total = took.total()
    if not total:
        return None
    low, high = (total - 1) // 2, total // 2
    values, passed = [], 0
    for value in sorted(took):
        before, passed = passed, passed + took[value]
        values += [value for index in {low, high} if before <= index < passed]
    return sum(values) / len(values)
