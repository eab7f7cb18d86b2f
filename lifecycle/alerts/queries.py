"""Alerts that a reader can see: through a repository of the alert, or the whole team."""

from __future__ import annotations

from typing import Final

from django.db.models import BooleanField, ExpressionWrapper, F, IntegerField, Q, QuerySet, Value
from django.db.models.expressions import Combinable, RawSQL

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.alerts.models import Alert
from lifecycle.alerts.places import AffectedImage, affected_images
from lifecycle.alerts.seen import open_pairs
from lifecycle.authority.covers import visible_sql, whole_teams
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.registry.models import Repository

LIVE: Final = "live"
_IMAGES_MAX: Final = 200
_SEEN_IN: Final = (
    "EXISTS (SELECT FROM lifecycle_repository repository"
    " WHERE repository.id = ANY(lifecycle_alert.repository_ids) AND {visible})"
)
# Whoever sees a repository sees where it runs in a cluster or an environment of the repository's team.
_AT_HOME: Final = (
    "EXISTS (SELECT FROM lifecycle_repository repository"
    " WHERE repository.id = ANY(lifecycle_alert.repository_ids) AND {visible} AND repository.team_id IN ("
    "SELECT team_id FROM lifecycle_cluster WHERE id = lifecycle_alert.cluster_id"
    " UNION ALL SELECT team_id FROM lifecycle_environment WHERE id = lifecycle_alert.environment_id))"
)
_COUNT: Final = (
    "(SELECT coalesce(sum(listed.images), 0)"
    " FROM unnest(lifecycle_alert.repository_ids, lifecycle_alert.image_counts) AS listed(id, images)"
    " JOIN lifecycle_repository repository ON repository.id = listed.id WHERE {visible})"
)


def alerts_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[Alert]:
    """Return the alerts of whole teams, of repositories, or of clusters, on which `actor` has `verb`; page by -id.

    `images_seen` is the number of affected images in repositories that `actor` can see. `is_place_seen`: they may see
    where it runs. Show an alert only by `sight.shown`.
    """
    rows = Alert.objects.select_related("team", "cluster", "environment", "acted_by", "resolved_by")
    whole = whole_teams(actor, verb)
    if whole is None:
        return _annotated(rows, F("images"), Value(True))
    condition, values = visible_sql(actor, verb, "repository")
    partly = RawSQL(_SEEN_IN.format(visible=condition), values, output_field=BooleanField())  # noqa: S611 -- conditions of covers.py
    counted = RawSQL(_COUNT.format(visible=condition), values, output_field=IntegerField())  # noqa: S611 -- as above
    at_home = RawSQL(_AT_HOME.format(visible=condition), values, output_field=BooleanField())  # noqa: S611 -- as above
    ids = sorted(whole)
    placed = Q(cluster=None) | Q(cluster__team__in=ids) | Q(environment__team__in=ids) | Q(at_home)
    # Who binds an environment to a cluster has environment.manage in both: its team's alerts are the cluster's too.
    is_bound = Q(cluster__team__in=ids, environment__team=F("team"))
    visible = rows.filter(Q(team__in=ids) | Q(partly) | is_bound)
    return _annotated(visible, counted, ExpressionWrapper(placed, BooleanField()))


def _annotated(rows: QuerySet[Alert], images: Combinable, is_place_seen: Combinable) -> QuerySet[Alert]:
    values = {"images_seen": images, "is_place_seen": is_place_seen}  # declared on Alert
    return rows.annotate(**values)


def filtered(
    rows: QuerySet[Alert],
    *,
    state: str = "",
    kind: str = "",
    team: str = "",
    severity: str = "",
    name: str = "",
    cluster: str = "",
) -> QuerySet[Alert]:
    """Return the rows that a list is limited to; "" does not limit. `state` can be `live`."""
    if state == LIVE:
        rows = rows.exclude(state=Alert.State.RESOLVED)
    elif state:
        rows = rows.filter(state=state)
    if cluster:
        rows = rows.filter(Q(is_place_seen=True), cluster__slug=cluster)
    given = {"kind": kind, "team__slug": team, "severity": severity, "vulnerability": name}
    return rows.filter(**{field: value for field, value in given.items() if value})


def repositories_of(alert: Alert, actor: User) -> list[tuple[Repository, int]]:
    """Return the repositories of an alert that `actor` can see, with the number of affected images there."""
    counts = dict(zip(alert.repository_ids, alert.image_counts, strict=True))
    rows = repositories_visible_to(actor).filter(pk__in=counts).select_related("team").order_by("name")
    return [(row, counts[row.pk]) for row in rows[:_IMAGES_MAX]]


def images_of(alert: Alert, actor: User, *, waiting: bool = False) -> list[AffectedImage]:
    """Return the affected images in use that `actor` can see now: the team's, or those that wait for it."""
    if not alert.vulnerability or not alert.is_live:
        return []
    packages = [package_id for _, package_id in open_pairs([alert.vulnerability])]
    visible = visible_sql(actor, Verb.IMAGE_VIEW, "repository")
    return affected_images(alert.vulnerability, packages, alert.team_id, visible, waiting=waiting, limit=_IMAGES_MAX)
