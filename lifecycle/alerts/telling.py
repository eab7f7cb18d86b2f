"""Tell teams about alerts: one notice per team, kind and look, however many alerts there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from django.db.models import Q, QuerySet
from django.urls import reverse

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.alerts.findings import FIXED
from lifecycle.alerts.models import Alert
from lifecycle.alerts.types import kind_called, label_of
from lifecycle.authority.grants import live_grants, over_whole_team
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import people_who
from lifecycle.core.severities import READING_ORDER
from lifecycle.notices.telling import tell
from lifecycle.notices.types import Telling
from lifecycle.registry.models import Repository

# Who can do something about a finding, or answers for it. Not everybody who can see the image.
_CONCERNED: Final = (Verb.RUNTIME_MANAGE, Verb.IMAGE_CREATE, Verb.IMAGE_REBUILD, Verb.IMAGE_QUARANTINE)
_LISTED_MAX: Final = 20  # alerts named in one notice
_PARTS_MAX: Final = 50  # repositories that are told on their own, for people without access to all of a team


def tell_teams(alerts: Sequence[Alert], now: datetime, *, is_reminder: bool = False) -> int:
    """Tell the teams of these alerts; return the number of notices. All mails of a team about alerts are one thread."""
    groups: dict[tuple[int, str], list[Alert]] = defaultdict(list)
    for alert in alerts:
        groups[alert.team_id, alert.kind].append(alert)
    ids = {team_id for team_id, _ in groups}
    teams, whole, parts = Team.objects.in_bulk(ids), _people_of_wholes(ids), _patterns_of_parts(ids)
    notices = 0
    for (team_id, kind), listed in sorted(groups.items()):
        ordered = sorted(listed, key=lambda alert: (READING_ORDER.index(alert.severity), alert.vulnerability))
        people = whole.get(team_id, set())
        told = [_tell(teams[team_id], kind, ordered, people, now, is_reminder=is_reminder)]
        for repository, others in _people_of_parts(teams[team_id], ordered, parts.get(team_id, set())).items():
            mine = [alert for alert in ordered if repository.pk in alert.repository_ids]
            told.append(
                _tell(
                    teams[team_id], kind, mine, others - people, now, is_reminder=is_reminder, repository=repository
                )
            )  # fmt: skip
        notices += sum(told)
    field = "reminded_at" if is_reminder else "told_at"
    Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(**{field: now})
    return notices


def _concerned() -> QuerySet[RoleGrant]:
    verbs = [verb.value for verb in _CONCERNED]
    return live_grants().filter(role__verbs__overlap=verbs, user__kind=User.Kind.PERSON, environment=None)


def _people_of_wholes(team_ids: Collection[int]) -> dict[int, set[int]]:
    """Return {team id: people who are concerned by all of the team}."""
    people: dict[int, set[int]] = defaultdict(set)
    grants = _concerned().filter(over_whole_team(), team__in=team_ids)
    for team_id, person_id in grants.values_list("team", "user"):
        people[team_id].add(person_id)
    return people


def _patterns_of_parts(team_ids: Collection[int]) -> dict[int, set[str]]:
    """Return {team id: patterns of its repositories that only some people are concerned by}."""
    patterns: dict[int, set[str]] = defaultdict(set)
    grants = _concerned().filter(team__in=team_ids).exclude(repository_pattern="*")
    for team_id, pattern in grants.values_list("team", "repository_like"):
        patterns[team_id].add(pattern)
    return patterns


def _tell(
    team: Team,
    kind: str,
    alerts: Sequence[Alert],
    people: set[int],
    now: datetime,
    *,
    is_reminder: bool,
    repository: Repository | None = None,
) -> bool:
    registered = kind_called(kind)
    if registered is None or not alerts or (repository is not None and not people):
        return False
    where = f"-r{repository.pk}" if repository is not None else ""
    first, ids = alerts[0], [alert.pk for alert in alerts]
    what = Telling(
        registered.topic,
        key=f"alerts-{team.pk}-{kind}-{now:%Y%m%d%H%M%S%f}-{min(ids)}{where}",
        thread=f"alerts-{team.slug}",
        subject=_subject(team, kind, alerts, is_reminder=is_reminder, repository=repository),
        text=_text(alerts, repository),
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


def _subject(
    team: Team, kind: str, alerts: Sequence[Alert], *, is_reminder: bool, repository: Repository | None
) -> str:
    place = repository.name if repository is not None else f"team {team.slug}"
    label = label_of(kind).lower()
    before = "Still open: " if is_reminder else ""
    if len(alerts) == 1:
        return f"{before}{alerts[0].vulnerability or alerts[0]} ({alerts[0].severity}): {label} in {place}"
    return f"{before}{len(alerts)} alerts, {label}, in {place}: {_severities(alerts)}"


def _severities(alerts: Sequence[Alert]) -> str:
    counts = {name: sum(alert.severity == name for alert in alerts) for name in READING_ORDER}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _text(alerts: Sequence[Alert], repository: Repository | None) -> str:
    lines = [_line(alert, repository) for alert in alerts[:_LISTED_MAX]]
    if len(alerts) > _LISTED_MAX:
        lines.append(f"And {len(alerts) - _LISTED_MAX} more.")
    return "\n".join(lines)


def _line(alert: Alert, repository: Repository | None) -> str:
    count = alert.images
    if repository is not None:
        count = dict(zip(alert.repository_ids, alert.image_counts, strict=True)).get(repository.pk, 0)
    words = [f"{alert.vulnerability or alert}, {alert.severity}, in {count} image{'' if count == 1 else 's'}"]
    evidence = alert.evidence
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


def _people_of_parts(team: Team, alerts: Sequence[Alert], patterns: Collection[str]) -> dict[Repository, set[int]]:
    """Return who is concerned by single repositories of the alerts: people whose grants do not cover all of a team."""
    if not patterns:
        return {}
    wanted = Q()
    for pattern in patterns:
        wanted |= Q(family__like=pattern)
    ids = {pk for alert in alerts for pk in alert.repository_ids}
    found: dict[Repository, set[int]] = {}
    for repository in Repository.objects.filter(wanted, pk__in=ids).select_related("team").order_by("pk")[:_PARTS_MAX]:
        people: set[int] = set()
        for verb in _CONCERNED:
            people.update(people_who(verb, team=team, family=repository.family).values_list("pk", flat=True))
        found[repository] = people
    return found
