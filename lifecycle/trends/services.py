"""Note what is open and what was fixed: by repository in batches, then by team."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from django.db.models import Sum

from lifecycle.advisories.models import Advisory
from lifecycle.core import clock
from lifecycle.core.severities import NONE, RANKS, UNKNOWN
from lifecycle.evidence.models import WaivedFinding
from lifecycle.rebuild.graph import RepositoryNode, current_images
from lifecycle.remedies.models import Remedy, RemedyPass
from lifecycle.remedies.services import older_images
from lifecycle.trends.models import COUNTED, TrendDay, TrendFact, TrendState
from lifecycle.vex.models import VexEffect

BATCH: Final = 200  # repositories
KEEP: Final = timedelta(days=400)
AT_LEAST_EVERY: Final = timedelta(days=30)  # a repository without changes has a fact too
_DAYS_MAX: Final = 3650  # that a fix took; more are counted as this


@dataclass(slots=True)
class _Open:
    """One advisory that is open in a repository, over its images and packages."""

    severity: str
    first_seen: str
    is_exploited: bool
    is_overdue: bool


def is_due(now: datetime) -> bool:
    """Return whether the facts of the day are to be noted: once a day, after a look for all remedies that day."""
    looked_at = RemedyPass.objects.order_by("-pk").values_list("looked_at", flat=True).first()
    if looked_at is None or looked_at.date() != now.date():
        return False
    return not TrendDay.objects.filter(day=now.date()).exists()


def note(repository_ids: Collection[int], day: date) -> None:
    """Compare what is open in these repositories with the last look, and store the facts of `day`.

    Runs in the caller's transaction. A repository that was looked at on that day already is left alone. While packages
    of an image in use are unknown, nothing of the repository counts as fixed.
    """
    before = {row.pk: row for row in TrendState.objects.select_for_update().filter(pk__in=repository_ids)}
    ids = [pk for pk in repository_ids if pk not in before or before[pk].day < day]
    current = current_images(ids)
    nodes: dict[int, list[RepositoryNode]] = defaultdict(list)
    for node in (*current.values(), *older_images(ids, current)):
        nodes[node.key].append(node)
    found = _open_in(ids)
    unscanned = {
        pk: sum(child.scanned_at is None for node in listed for child in node.platforms) for pk, listed in nodes.items()
    }
    states, facts = [], []
    gone = {pk: set(before[pk].open) - found[pk].keys() for pk in ids if pk in before and pk in nodes}
    not_fixed = _not_fixed(gone, nodes)
    for pk in ids:
        former, seen = before.get(pk), found[pk]
        fixed: Counter[int] = Counter()
        opened = {name: item.first_seen for name, item in seen.items()}
        if former is not None and unscanned.get(pk):
            opened = former.open | opened
        elif former is not None:
            fixed = _fixed(former.open, gone.get(pk, set()) - not_fixed.get(pk, set()), day)
        counts = _counts(seen.values()) | {"unscanned": unscanned.get(pk, 0)}
        if not nodes.get(pk) and former is None and not opened:
            continue  # empty, and it always was
        is_news = former is None or fixed or any(getattr(former, name) != counts[name] for name in COUNTED)
        if former is None or is_news or former.fact_day <= day - AT_LEAST_EVERY:
            facts.append(TrendFact(repository_id=pk, day=day, fixed=_stored(fixed), **counts))
        fact_day = day if facts and facts[-1].repository_id == pk else former.fact_day if former else day
        states.append(TrendState(repository_id=pk, day=day, fact_day=fact_day, open=opened, **counts))
    TrendState.objects.bulk_create(
        states, update_conflicts=True, unique_fields=["repository"], update_fields=["day", "fact_day", "open", *COUNTED]
    )
    TrendFact.objects.filter(repository__in=ids, day=day).delete()
    TrendFact.objects.bulk_create(facts)


def _open_in(repository_ids: Collection[int]) -> dict[int, dict[str, _Open]]:
    """Return {repository id: {vulnerability: what is open}}, from the remedies. One query."""
    now = clock.now().isoformat(timespec="seconds")
    found: dict[int, dict[str, _Open]] = {pk: {} for pk in repository_ids}
    rows = Remedy.objects.filter(repository__in=repository_ids).values_list("repository_id", "closes", "found_at")
    for pk, closes, found_at in rows.iterator(chunk_size=500):
        for name, severity, _, is_exploited, _, *times in closes:
            seen, due = times if times else (found_at.isoformat(timespec="seconds"), None)
            one = _Open(severity, seen, is_exploited, due is not None and due < now)
            other = found[pk].setdefault(name, one)
            other.severity = min(severity, other.severity, key=RANKS.__getitem__)
            other.first_seen = min(seen, other.first_seen)
            other.is_overdue |= one.is_overdue
    return found


def _counts(items: Iterable[_Open]) -> dict[str, int]:
    counts = dict.fromkeys(COUNTED, 0)
    for item in items:
        counts[UNKNOWN if item.severity == NONE else item.severity] += 1
        counts["exploited"] += item.is_exploited
        counts["overdue"] += item.is_overdue
    return counts


def _not_fixed(
    gone: Mapping[int, Collection[str]], nodes: Mapping[int, Collection[RepositoryNode]]
) -> dict[int, set[str]]:
    """Return {repository id: of what is gone, what VEX or a waiver closed, or has no live advisory any more}."""
    names = {name for found in gone.values() for name in found}
    if not names:
        return {}
    live = set(
        Advisory.objects.filter(vulnerability__in=names, withdrawn_at=None).values_list("vulnerability", flat=True)
    )
    places: dict[int, set[int]] = defaultdict(set)
    for pk, listed in nodes.items():
        if gone.get(pk):
            for node in listed:
                for child in node.platforms:
                    places[child.pk].add(pk)
    closed: dict[int, set[str]] = {pk: set(found) - live for pk, found in gone.items()}
    effects = VexEffect.objects.filter(image__in=places, vulnerability__in=names, suppresses=True)
    waived = WaivedFinding.objects.filter(image__in=places, vulnerability__in=names)
    pairs = effects.values_list("image_id", "vulnerability").union(waived.values_list("image_id", "vulnerability"))
    for image_id, name in pairs:
        for pk in places[image_id]:
            closed[pk].add(name)
    return closed


def _fixed(opened: Mapping[str, str], names: Collection[str], day: date) -> Counter[int]:
    """Return {days: number of findings that took so long}."""
    days = ((day - datetime.fromisoformat(opened[name]).date()).days for name in names)
    return Counter(min(max(number, 0), _DAYS_MAX) for number in days)


def _stored(fixed: Counter[int]) -> dict[str, int]:
    return {str(days): count for days, count in sorted(fixed.items())}


def finish(day: date) -> None:
    """Store the facts of the teams from those of their repositories, and delete old ones. Safe to run twice."""
    totals = {f"sum_{name}": Sum(name) for name in COUNTED}
    rows = TrendState.objects.values("repository__team").annotate(**totals).values_list("repository__team", *totals)
    sums = {pk: dict(zip(COUNTED, counts, strict=True)) for pk, *counts in rows}
    fixed: dict[int, Counter[str]] = defaultdict(Counter)
    facts = TrendFact.objects.filter(day=day, repository__isnull=False).exclude(fixed={})
    for team_id, item in facts.values_list("repository__team", "fixed"):
        fixed[team_id].update(item)
    former = TrendFact.objects.filter(day__gte=day - AT_LEAST_EVERY, team__isnull=False).exclude(team__in=list(sums))
    empty = dict.fromkeys((f"sum_{name}" for name in COUNTED), 0)
    sums |= dict.fromkeys(former.values_list("team_id", flat=True).distinct(), empty)  # without repositories now
    TrendFact.objects.filter(day=day, team__isnull=False).delete()
    TrendFact.objects.bulk_create(
        TrendFact(team_id=pk, day=day, fixed=dict(fixed[pk]), **counts) for pk, counts in sums.items()
    )
    TrendFact.objects.filter(day__lt=day - KEEP).delete()
    TrendDay.objects.filter(day__lt=day - KEEP).delete()
    TrendDay.objects.get_or_create(day=day)
