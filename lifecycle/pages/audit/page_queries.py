"""Where an event leads: the pages of its subject, image, repository, environment and team that the reader can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.urls import reverse
from django.utils.http import urlencode

from accounts.models import ApiToken, Robot, Role, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import (
    access_requests_visible_to,
    environments_visible_to,
    groups_visible_to,
    repositories_visible_to,
    teams_visible_to,
)
from lifecycle.jobs.queries import jobs_visible_to
from lifecycle.promotion.queries import promotions_visible_to
from lifecycle.promotion.release_queries import sets_visible_to
from lifecycle.rebuild.models import RebuildJob
from lifecycle.rebuild.queries import waves_visible_to
from lifecycle.registry.models import RepositoryImage


def links_of(event: AuditEvent, user: User) -> dict[str, str]:
    """Return the addresses that an event page shows: `subject`, `image`, `repository`, `environment`, `team`.

    An address is "" when `user` cannot see the page, or when what it showed is gone. At most six queries.
    """
    finder = _FINDERS.get(event.subject_kind)
    links = {"subject": finder(event.subject_id, event, user) if finder is not None and event.subject_id else ""}
    repository = (
        repositories_visible_to(user)
        .filter(name=event.repository)
        .select_related("team")
        .order_by("-registry__is_managed", "registry_id")
        .first()
        if event.repository
        else None
    )
    path = (repository.team.slug, repository.name) if repository is not None else ()
    links["repository"] = reverse("lifecycle:repository", args=path) if path else ""
    is_here = (
        bool(path)
        and RepositoryImage.objects.filter(repository=repository, image__digest=event.digest, removed_at=None).exists()
    )
    links["image"] = reverse("lifecycle:image", args=(*path, event.digest)) if is_here else ""
    team = event.team
    is_seen = team is not None and teams_visible_to(user).filter(pk=team.pk).exists()
    links["team"] = reverse("lifecycle:team", args=(team.slug,)) if team is not None and is_seen else ""
    shows_board = is_seen and bool(event.environment)
    board = f"{reverse('lifecycle:environments')}?{urlencode({'team': team.slug})}" if team is not None else ""
    links["environment"] = board if shows_board else ""
    return links


def _promotion(subject_id: int, event: AuditEvent, user: User) -> str:
    is_seen = promotions_visible_to(user).filter(pk=subject_id).exists()
    return reverse("lifecycle:promotion", args=(subject_id,)) if is_seen else ""


def _wave(subject_id: int, event: AuditEvent, user: User) -> str:
    is_seen = waves_visible_to(user).filter(pk=subject_id).exists()
    return reverse("lifecycle:wave", args=(subject_id,)) if is_seen else ""


def _wave_job(subject_id: int, event: AuditEvent, user: User) -> str:
    job = RebuildJob.objects.filter(pk=subject_id, wave__in=waves_visible_to(user)).first()
    is_seen = job is not None and repositories_visible_to(user).filter(pk=job.repository_id).exists()
    return reverse("lifecycle:wave-log", args=(job.wave_id, job.pk)) if job is not None and is_seen else ""


def _job(subject_id: int, event: AuditEvent, user: User) -> str:
    is_seen = jobs_visible_to(user).filter(pk=subject_id).exists()
    return reverse("lifecycle:job", args=(subject_id,)) if is_seen else ""


def _team(subject_id: int, event: AuditEvent, user: User) -> str:
    team = teams_visible_to(user).filter(pk=subject_id).first()
    return reverse("lifecycle:team", args=(team.slug,)) if team is not None else ""


def _access_request(subject_id: int, event: AuditEvent, user: User) -> str:
    is_seen = access_requests_visible_to(user).filter(pk=subject_id).exists()
    return reverse("lifecycle:access-request", args=(subject_id,)) if is_seen else ""


def _grant(subject_id: int, event: AuditEvent, user: User) -> str:
    """The members of the grant's team. A revoked grant has no row, but the event names its team."""
    grant = RoleGrant.objects.filter(pk=subject_id).select_related("team").first()
    team_id = grant.team_id if grant is not None else event.team_id
    team = teams_visible_to(user).filter(pk=team_id).first() if team_id is not None else None
    return f"{reverse('lifecycle:team', args=(team.slug,))}?tab=members" if team is not None else ""


def _environment(subject_id: int, event: AuditEvent, user: User) -> str:
    environment = environments_visible_to(user).filter(pk=subject_id).first()
    if environment is None:
        return ""
    return f"{reverse('lifecycle:environments')}?{urlencode({'team': environment.team.slug})}"


def _release_set(subject_id: int, event: AuditEvent, user: User) -> str:
    is_seen = sets_visible_to(user).filter(pk=subject_id).exists()
    return reverse("lifecycle:release-set", args=(subject_id,)) if is_seen else ""


def _robot(subject_id: int, event: AuditEvent, user: User) -> str:
    robot = Robot.objects.filter(pk=subject_id, team__in=teams_visible_to(user)).select_related("team").first()
    return reverse("lifecycle:robot", args=(robot.team.slug, robot.pk)) if robot is not None else ""


def _token(subject_id: int, event: AuditEvent, user: User) -> str:
    token = ApiToken.objects.filter(pk=subject_id).select_related("user").first()
    if token is None:
        return ""
    if token.user_id == user.pk:
        return reverse("lifecycle:tokens")
    robot = Robot.objects.filter(user=token.user_id, team__in=teams_visible_to(user)).select_related("team").first()
    return reverse("lifecycle:robot", args=(robot.team.slug, robot.pk)) if robot is not None else ""


def _role(subject_id: int, event: AuditEvent, user: User) -> str:
    role = Role.objects.filter(pk=subject_id).first()
    return reverse("lifecycle:role", args=(role.slug,)) if role is not None else ""


def _group(subject_id: int, event: AuditEvent, user: User) -> str:
    is_seen = groups_visible_to(user).filter(pk=subject_id).exists()
    return reverse("lifecycle:group", args=(subject_id,)) if is_seen else ""


def _person(subject_id: int, event: AuditEvent, user: User) -> str:
    return reverse("lifecycle:people") if user.is_superuser else ""


# Kind of subject -> the page that shows it. Images and repositories have links of their own.
_FINDERS: Final[dict[str, Callable[[int, AuditEvent, User], str]]] = {
    "accessrequest": _access_request,
    "apitoken": _token,
    "environment": _environment,
    "group": _group,
    "job": _job,
    "promotionrequest": _promotion,
    "releaseset": _release_set,
    "rebuildjob": _wave_job,
    "rebuildwave": _wave,
    "robot": _robot,
    "role": _role,
    "rolegrant": _grant,
    "team": _team,
    "user": _person,
}
