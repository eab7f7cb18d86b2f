"""Who is told about quarantines: the teams whose images one covers, and those who can lift it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from django.db.models import F, QuerySet
from django.urls import reverse

from accounts.models import Team, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.identity import counted_voters
from lifecycle.authority.queries import people_who
from lifecycle.environments.models import Environment
from lifecycle.events import AuditRecorded
from lifecycle.jobs import services as jobs
from lifecycle.notices.kinds import TELL_QUARANTINE
from lifecycle.notices.models import Notice
from lifecycle.notices.telling import because, by, key_of, name_of, settle, tell
from lifecycle.notices.topics import Topic, register
from lifecycle.notices.types import Telling
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.queries import covered_ids
from lifecycle.registry.models import Repository, RepositoryImage

SET: Final = register(
    Topic("quarantine.set", "Quarantined", "An image of yours, or a base that it is built on, was quarantined.")
)
LIFT_ASKED: Final = register(
    Topic("quarantine.lift_asked", "Lift asked", "Somebody asks to lift a quarantine, and you can decide.")
)
LIFTED: Final = register(
    Topic("quarantine.lifted", "Lifted", "A quarantine of your images was lifted, or your request to lift one refused.")
)
PUSH_UNDONE: Final = register(
    Topic("quarantine.push_undone", "Push undone", "Somebody pushed an image that a quarantine withdrew.")
)
# Whom a quarantine stops, and who can lift it. Not everybody who can see the image.
_CONCERNED: Final = (
    Verb.IMAGE_QUARANTINE,
    Verb.IMAGE_REBUILD,
    Verb.PROMOTION_REQUEST,
    Verb.PROMOTION_APPROVE,
    Verb.PROMOTION_EXECUTE,
)
_BATCH: Final = 5000  # images in one query


@dataclass(frozen=True, slots=True)
class Covered:
    """A repository with covered images: the nearest one, how many, and whether it is the quarantined image itself."""

    repository: Repository
    digest: str
    count: int
    is_direct: bool


def tell_about_quarantine(event: AuditRecorded) -> None:
    """Tell people about an event of the audit log, if it is one about a quarantine."""
    if event.subject_kind != "quarantine" or event.subject_id is None:
        return
    if event.action in {Action.IMAGE_QUARANTINED, Action.QUARANTINE_RELEASED}:
        begins = event.action == Action.IMAGE_QUARANTINED
        payload = {"begins": begins}
        jobs.queue(TELL_QUARANTINE, subject_id=event.subject_id, actor=system_user(), payload=payload)
        return
    if event.action == Action.QUARANTINE_PUSH_UNDONE:
        _push_undone(_rows().get(pk=event.subject_id), event)
        return
    if event.action in {Action.QUARANTINE_RELEASE_REQUESTED, Action.QUARANTINE_RELEASE_REFUSED}:
        row = _rows().get(pk=event.subject_id)
        settle(_thread(row), (LIFT_ASKED,))
        (_lift_asked if event.action == Action.QUARANTINE_RELEASE_REQUESTED else _lift_refused)(row, event)


def _rows() -> QuerySet[Quarantine]:
    return Quarantine.objects.select_related("image", "team", "created_by", "release_requested_by", "released_by")


def _lift_asked(row: Quarantine, event: AuditRecorded) -> None:
    """Ask those who can lift it: a second person with the right on a repository that has the image."""
    actor = by(event)
    own = [actor.pk] if actor is not None else []
    asked: set[int] = set()
    for place in places_of([row.image_id]).values():
        found = people_who(Verb.IMAGE_QUARANTINE, team=place.team, family=place.family, environment=place.environment)
        people = set(counted_voters(found, own).exclude(pk__in=own).values_list("pk", flat=True)) - asked
        if people:
            _tell(LIFT_ASKED, row, f"{key_of(event)}-r{place.pk}", repository=place, people=people, actor=actor,
                  text=f"{actor} asks to lift the quarantine. It still blocks the image.{because(event)}")  # fmt: skip
        asked |= people


def _push_undone(row: Quarantine, event: AuditRecorded) -> None:
    """Tell who can quarantine there, and who pushed, once a day for each repository."""
    done = AuditEvent.objects.get(pk=event.event_id)
    places = Repository.objects.filter(registry__is_managed=True, name=done.repository)
    place = places.select_related("team", "environment").first()
    if place is None:
        return
    found = people_who(Verb.IMAGE_QUARANTINE, team=place.team, family=place.family, environment=place.environment)
    pushed = RepositoryImage.objects.filter(repository=place, image__digest=done.digest, pushed_by__is_active=True)
    people = set(found.values_list("pk", flat=True)) | set(pushed.values_list("pushed_by", flat=True))
    covered = Covered(place, done.digest, 1, is_direct=True)
    _tell(PUSH_UNDONE, row, f"{_thread(row)}-undone-r{place.pk}-{done.at:%Y-%m-%d}", repository=place, people=people,
          actor=None, text=f"Somebody pushed this withdrawn image. It was deleted again. Reason: {row.reason}",
          covered=covered)  # fmt: skip


def _lift_refused(row: Quarantine, event: AuditRecorded) -> None:
    actor = by(event)
    # The row forgets who asked; the notice about it does not.
    asked = Notice.objects.filter(thread=_thread(row), topic=LIFT_ASKED.name).order_by("-pk").first()
    requester = User.objects.filter(username=asked.actor_name).first() if asked is not None else None
    if asked is None or requester is None or requester == actor:
        return
    _tell(LIFTED, row, key_of(event), repository=asked.repository, people={requester.pk}, actor=actor,
          text=f"{actor} refused to lift it: it still blocks the image.{because(event)}")  # fmt: skip


def tell_begin(quarantine_id: int) -> None:
    """Tell the teams of all covered images. One notice for each repository, or for each team with several of them.

    People without access to all of such a team are told about each repository that they can see.
    """
    row = _rows().get(pk=quarantine_id)
    if not row.is_live:
        return
    by_team: dict[int, list[Covered]] = {}
    for covered in _covered_by(row):
        by_team.setdefault(covered.repository.team_id, []).append(covered)
    for found in by_team.values():
        told: set[int] = set()
        if len(found) > 1:
            team = found[0].repository.team
            told = _concerned(team, None, None)
            _tell(SET, row, f"{_thread(row)}-set-t{team.pk}", team=team, people=told, actor=row.created_by,
                  text=_words_of_team(row, found), is_own=any(each.is_direct for each in found))  # fmt: skip
        for covered in found:
            repository = covered.repository
            people = _concerned(repository.team, repository.family, repository.environment) - told
            if len(found) == 1 or people:
                _tell(SET, row, f"{_thread(row)}-set-r{repository.pk}", repository=repository, people=people,
                      actor=row.created_by, text=_words(row, covered), covered=covered, is_own=covered.is_direct,
                      is_for_channels=len(found) == 1)  # fmt: skip


def tell_lifted(quarantine_id: int) -> None:
    """Tell everybody who was told that it begins, in the same words for each team or repository."""
    row = _rows().get(pk=quarantine_id)
    settle(_thread(row), (SET, LIFT_ASKED))
    begun = Notice.objects.filter(thread=_thread(row), topic=SET.name)
    begun = begun.select_related("repository__team", "repository__environment", "team").order_by("pk")
    own_page = reverse("lifecycle:quarantine", args=[row.pk])
    told: dict[int, set[int]] = {}
    for notice in begun:
        repository, team = notice.repository, notice.owner
        family, environment = (repository.family, repository.environment) if repository is not None else (None, None)
        people = _concerned(team, family, environment) - told.get(team.pk, set())
        if repository is None:
            told[team.pk] = people
        _tell(LIFTED, row, notice.key.replace("-set-", "-lifted-"), repository=repository, team=notice.team,
              people=people, actor=row.released_by, link=notice.link, digest=notice.facts.get("digest", ""),
              is_own=notice.link == own_page,  # who is only covered through a base is told nothing of the base's people
              text="The quarantine was lifted: the images can be promoted and built on again.",
              is_for_channels=repository is None or team.pk not in told)  # fmt: skip


def _tell(
    topic: Topic,
    row: Quarantine,
    key: str,
    *,
    text: str,
    people: Iterable[int],
    actor: User | None,
    repository: Repository | None = None,
    team: Team | None = None,
    covered: Covered | None = None,
    is_own: bool = True,
    link: str = "",
    digest: str = "",
    is_for_channels: bool = True,
) -> None:
    """Tell people who see `repository`, or all of `team`. Unless `is_own`, nothing names the base."""
    digest = digest or (covered.digest if covered is not None else row.image.digest if repository is not None else "")
    place = repository.name if repository is not None else f"images of team {team.slug}" if team is not None else ""
    page = reverse("lifecycle:quarantine", args=[row.pk])
    if not is_own and repository is not None:
        page = reverse("lifecycle:image", args=[repository.team.slug, repository.name, digest])
    elif not is_own and team is not None:
        page = f"{reverse('lifecycle:images')}?team={team.slug}"
    facts = {"quarantine": str(row.pk), "digest": digest}
    what = Telling(
        topic,
        key=key,
        thread=_thread(row),
        subject=f"{row}: {place}{f'@{digest[:19]}' if digest else ''}",
        text=text,
        link=link or page,
        repository=repository,
        team=team,
        environment=repository.environment if repository is not None else None,
        actor=name_of(actor) if is_own else "",
        facts={name: value for name, value in facts.items() if value},
        is_for_channels=is_for_channels,
    )
    tell(what, set(people) - ({actor.pk} if actor is not None else set()))


def _thread(row: Quarantine) -> str:
    return f"quarantine-{row.pk}"


def _words(row: Quarantine, covered: Covered) -> str:
    what = "This image is" if covered.is_direct else "The image is built on an image that is"
    more = f" It covers {covered.count - 1} more here." if covered.count > 1 else ""
    pulls = " It is withdrawn from the registry, so it cannot be pulled." if row.withdraw and covered.is_direct else ""
    return f"{what} quarantined: nobody can promote it or build on it.{pulls} Reason: {row.reason}{more}"


def _words_of_team(row: Quarantine, found: Sequence[Covered]) -> str:
    count = sum(each.count for each in found)
    return (
        f"{row} covers {count} images in {len(found)} repositories of team {found[0].repository.team.slug}:"
        f" nobody can promote them or build on them. Reason: {row.reason}"
    )


def _concerned(team: Team, family: str | None, environment: Environment | None) -> set[int]:
    people: set[int] = set()
    for verb in _CONCERNED:
        found = people_who(verb, team=team, family=family, environment=environment)
        people.update(found.values_list("pk", flat=True))
    return people


def places_of(image_ids: Collection[int]) -> dict[tuple[int, str], Repository]:
    """Return {(team id, family): repository} of the repositories that have these images, a source before a target."""
    held = RepositoryImage.objects.filter(image__in=image_ids, removed_at=None).values("repository")
    rows = Repository.objects.filter(pk__in=held).select_related("team", "environment")
    found: dict[tuple[int, str], Repository] = {}
    for row in rows.order_by(F("environment").asc(nulls_first=True), "pk"):
        found.setdefault((row.team_id, row.family), row)
    return found


def _covered_by(row: Quarantine) -> list[Covered]:
    """Return the repositories with images that the quarantine covers, one for each family, with the nearest image."""
    ids = covered_ids(row)
    order = list(ids)
    images: dict[tuple[int, str], dict[int, str]] = {}
    places: dict[tuple[int, str], Repository] = {}
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        for key, repository in places_of(part).items():
            places.setdefault(key, repository)
        held = RepositoryImage.objects.filter(image__in=part, removed_at=None, is_top_level=True)
        rows = held.values_list("repository__team", "repository__family", "image", "image__digest")
        rank = {pk: number for number, pk in enumerate(part)}
        for team, family, pk, digest in sorted(rows, key=lambda found: rank[found[2]]):
            images.setdefault((team, family), {})[pk] = digest
    return [
        Covered(places[key], next(iter(found.values())), len(found), any(ids[pk] for pk in found))
        for key, found in images.items()
    ]
