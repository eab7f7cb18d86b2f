"""Tell teams about alerts: one notice per team, kind and look, however many alerts there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from django.urls import reverse

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.alerts.findings import FIXED
from lifecycle.alerts.models import Alert
from lifecycle.alerts.sight import shown_to_team
from lifecycle.alerts.types import kind_called, label_of
from lifecycle.authority.grants import live_grants
from lifecycle.core.severities import READING_ORDER
from lifecycle.notices.telling import tell
from lifecycle.notices.types import Telling
from lifecycle.registry.models import Repository

# Who can do something about a finding, or answers for it. Not everybody who can see the image.
_CONCERNED: Final = (Verb.RUNTIME_MANAGE, Verb.IMAGE_CREATE, Verb.IMAGE_REBUILD, Verb.IMAGE_QUARANTINE)
_LISTED_MAX: Final = 20  # alerts named in one notice
_WHOLE: Final = "%"  # the pattern of grants on all repositories of a team
# {pattern of repositories: (people who are concerned by them, people who see them)}
_People = dict[str, tuple[set[int], set[int]]]


def tell_teams(alerts: Sequence[Alert], now: datetime, *, is_reminder: bool = False, is_end: bool = False) -> int:
    """Tell the teams of these alerts; return the number of notices. All mails of a team about alerts are one thread.

    `is_end`: they closed, because their cause is gone.
    """
    before = "Closed: " if is_end else "Still open: " if is_reminder else ""
    groups: dict[tuple[int, str], list[Alert]] = defaultdict(list)
    for alert in alerts:
        groups[alert.team_id, alert.kind].append(alert)
    ids = {team_id for team_id, _ in groups}
    teams, by_team = Team.objects.in_bulk(ids), _people_by_pattern(ids)
    notices = 0
    for (team_id, kind), listed in sorted(groups.items()):
        ordered = sorted(listed, key=lambda alert: (READING_ORDER.index(alert.severity), alert.vulnerability))
        team, people = teams[team_id], by_team.get(team_id, {})
        told = [_tell(team, kind, ordered, people.get(_WHOLE, (set(), set()))[0], now, before=before)]
        for part, persons in _parts(team, ordered, people).items():
            ids_of_part = {repository.pk for repository in part}
            mine = [alert for alert in ordered if not ids_of_part.isdisjoint(alert.repository_ids)]
            told.append(_tell(team, kind, mine, persons, now, before=before, part=part))
        notices += sum(told)
    if is_end:
        return notices
    field = "reminded_at" if is_reminder else "told_at"
    Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(**{field: now})
    return notices


def _people_by_pattern(team_ids: Collection[int]) -> dict[int, _People]:
    """Return {team id: who is concerned, by the patterns of repositories in their grants}. One query."""
    verbs = {verb.value for verb in _CONCERNED}
    found: dict[int, _People] = defaultdict(dict)
    grants = live_grants().filter(team__in=team_ids, user__kind=User.Kind.PERSON, environment=None)
    for team_id, pattern, person_id, held in grants.values_list("team", "repository_like", "user", "role__verbs"):
        concerned, seeing = found[team_id].setdefault(pattern, (set(), set()))
        if not verbs.isdisjoint(held):
            concerned.add(person_id)
        if Verb.IMAGE_VIEW.value in held:
            seeing.add(person_id)
    return found


def _parts(team: Team, alerts: Sequence[Alert], people: _People) -> dict[tuple[Repository, ...], set[int]]:
    """Return {repositories: people who are concerned by exactly these of a team}: each person once."""
    concerned, seeing = people.get(_WHOLE, (set(), set()))
    told = concerned & seeing
    if not any(each - told for each, _ in people.values()):
        return {}
    ids = {pk for alert in alerts for pk in alert.repository_ids}
    rows = Repository.objects.filter(team=team, pk__in=ids).select_related("team").order_by("name", "pk")
    patterns: dict[int, list[str]] = defaultdict(list)
    for pattern in people:
        for pk in rows.filter(family__like=pattern).values_list("pk", flat=True):
            patterns[pk].append(pattern)
    parts: dict[int, list[Repository]] = defaultdict(list)
    for repository in rows:
        matching = [people[pattern] for pattern in patterns[repository.pk]]
        concerned = set().union(*(each for each, _ in matching))
        seeing = set().union(*(each for _, each in matching))
        for person_id in concerned & seeing - told:
            parts[person_id].append(repository)
    found: dict[tuple[Repository, ...], set[int]] = defaultdict(set)
    for person_id, part in parts.items():
        found[tuple(part)].add(person_id)
    return found


def _tell(
    team: Team,
    kind: str,
    alerts: Sequence[Alert],
    people: Collection[int],
    now: datetime,
    *,
    before: str,
    part: Sequence[Repository] = (),
) -> bool:
    registered = kind_called(kind)
    if registered is None or not alerts:
        return False
    repository = part[0] if part else None  # all of these people see each of the part
    where = f"-p{min(people)}" if part else ""
    first, ids = alerts[0], [alert.pk for alert in alerts]
    what = Telling(
        registered.topic,
        key=f"alerts-{team.pk}-{kind}-{now:%Y%m%d%H%M%S%f}-{min(ids)}{where}",
        thread=f"alerts-{team.slug}",
        subject=before + _subject(team, kind, alerts, part=part),
        text=_text(alerts, part),
        link=_link(team, kind, alerts),
        repository=repository,
        team=team if repository is None else None,
        facts={
            "alerts": str(len(alerts)),
            "severity": first.severity,
            **({"alert": str(first.pk), "vulnerability": first.vulnerability} if len(alerts) == 1 else {}),
        },
        is_for_channels=repository is None,
    )
    return tell(what, people) is not None


def _link(team: Team, kind: str, alerts: Sequence[Alert]) -> str:
    if len(alerts) == 1:
        return reverse("lifecycle:alert", args=[alerts[0].pk])
    state = "&state=resolved" if kind == FIXED.name else ""
    return f"{reverse('lifecycle:alerts')}?team={team.slug}&kind={kind}{state}"


def _subject(team: Team, kind: str, alerts: Sequence[Alert], *, part: Sequence[Repository]) -> str:
    place = f"{len(part)} repositories of team {team.slug}" if part else f"team {team.slug}"
    place = part[0].name if len(part) == 1 else place
    label = label_of(kind).lower()
    if len(alerts) == 1:
        return f"{shown_to_team(alerts[0]).about or alerts[0]} ({alerts[0].severity}): {label} in {place}"
    return f"{len(alerts)} alerts, {label}, in {place}: {_severities(alerts)}"


def _severities(alerts: Sequence[Alert]) -> str:
    counts = {name: sum(alert.severity == name for alert in alerts) for name in READING_ORDER}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _text(alerts: Sequence[Alert], part: Sequence[Repository]) -> str:
    ids = {repository.pk for repository in part}
    lines = [_line(alert, ids) for alert in alerts[:_LISTED_MAX]]
    if len(alerts) > _LISTED_MAX:
        lines.append(f"And {len(alerts) - _LISTED_MAX} more.")
    return "\n".join(lines)


def _line(alert: Alert, part: Collection[int]) -> str:
    seen = shown_to_team(alert)
    if seen.cluster is not None:
        why = seen.evidence.get("why", "")
        where = f", in cluster {seen.cluster}" if seen.cluster else ""
        return f"{seen.about or alert}, {alert.severity}{where}{f': {why}' if why else '.'}"
    count = alert.images
    if part:
        counts = zip(alert.repository_ids, alert.image_counts, strict=True)
        count = min(count, sum(images for pk, images in counts if pk in part))
    words = [f"{seen.about or alert}, {alert.severity}, in {count} image{'' if count == 1 else 's'}"]
    evidence = alert.evidence
    if radius := evidence.get("blast_radius"):
        words.append(f"runs in {radius['workloads']} workloads of {radius['clusters']} clusters")
    if evidence.get("is_exploited"):
        words.append("known exploited")
    if evidence.get("due_at"):
        words.append(f"due since {evidence['due_at'][:10]}")
    if evidence.get("severity_before"):
        words.append(f"was {evidence['severity_before']}")
    if packages := evidence.get("packages"):
        words.append(packages[0]["why"] or packages[0]["package"])
        if packages[0]["fixed_version"]:
            words.append(f"fixed in {packages[0]['fixed_version']}")
    if evidence.get("is_base_fixed"):
        words.append("its base is fixed: rebuild on it")
    return "; ".join(words) + "."
