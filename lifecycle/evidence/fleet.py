"""The packages and findings of all images in use of a repository or a team as one file, written image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.db.models import Q, QuerySet

from accounts.models import User
from lifecycle.advisories.queries import own_ids
from lifecycle.authority.queries import environments_visible_to, repositories_visible_to, teams_visible_to
from lifecycle.core import locks
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.environments.models import Slot
from lifecycle.evidence.due import with_due_dates
from lifecycle.evidence.exporting import FINDING_FIELDS, csv_lines, cyclonedx_of, finding_row, packages_in
from lifecycle.evidence.findings import Finding, findings_of_image, unscanned
from lifecycle.evidence.sarif import Place, sarif_of
from lifecycle.evidence.spdx import Subject, spdx_of
from lifecycle.evidence.vex_export import cyclonedx_vex_of, openvex_of
from lifecycle.evidence.waived import with_waivers
from lifecycle.registry.constants import OWN_TAGS
from lifecycle.registry.models import Image, Repository, Tag

IMAGES_MAX: Final = 500  # in one file: an image takes 10 to 100 ms
_FIELDS: Final = ("repository", "tags", "digest", "environments", *FINDING_FIELDS)


@dataclass(slots=True)
class Used:
    """An image in use in a repository: its tags there, and the environments that run it."""

    repository: Repository
    image: Image
    tags: list[str] = field(default_factory=list)
    environments: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The image as people name it: by its first tag, else by digest."""
        mark = f":{self.tags[0]}" if self.tags else f"@{self.image.digest}"
        return f"{self.repository.name}{mark}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a file is about: the name in its file name, and the repositories."""

    name: str
    repositories: QuerySet[Repository]


def scope_for(actor: User, *, team: str = "", repository: str = "") -> Scope:
    """Return the repositories of a team that `actor` can see, or one of them by name.

    Of a team, only source repositories: what an environment runs is counted there. Raises Malformed, NotFound.
    """
    if bool(team) == bool(repository):
        raise Malformed("Name a team or a repository.", field="team")
    visible = repositories_visible_to(actor)
    if repository:
        rows = visible.filter(name=repository)
        if not rows.exists():
            raise NotFound("Repository not found, or you don't have access.")
        return Scope(repository.replace("/", "-"), rows)
    if not teams_visible_to(actor).filter(slug=team).exists():
        raise NotFound("Team not found, or you don't have access.")
    return Scope(f"team-{team}", visible.filter(team__slug=team, source=None))


def images_in_use(actor: User, repositories: QuerySet[Repository]) -> list[Used]:
    """Return the images with a tag in these repositories, or that an environment runs, by repository and tag.

    Raises Malformed for more than IMAGES_MAX: a file that leaves some out would look complete.
    """
    tags = (
        Tag.objects.filter(repository__in=repositories, image__isnull=False)
        .exclude(image__kind=Image.Kind.ARTIFACT)
        .exclude(Q(name__startswith=OWN_TAGS[0]) | Q(name__startswith=OWN_TAGS[1]))
    )
    slots = Slot.objects.filter(repository__in=repositories, image__isnull=False)
    pairs = {*tags.values_list("repository_id", "image_id").distinct()[: IMAGES_MAX + 1]}
    pairs |= {*slots.values_list("repository_id", "image_id").distinct()[: IMAGES_MAX + 1]}
    if len(pairs) > IMAGES_MAX:
        raise Malformed(
            f"A file holds the findings of at most {IMAGES_MAX} images in use, and here are more. Export single"
            " repositories, or delete tags that nobody needs.",
            field="team",
        )
    images = Image.objects.defer("manifest", "config").in_bulk({image for _, image in pairs if image is not None})
    places = {row.pk: row for row in repositories.select_related("team", "registry")}
    used = {pair: Used(places[pair[0]], images[pair[1]]) for pair in pairs if pair[1] in images and pair[0] in places}
    for repository, image, name in tags.order_by("name").values_list("repository_id", "image_id", "name"):
        if (repository, image) in used:
            used[repository, image].tags.append(name)
    seen = {place.pk: place.slug for place in environments_visible_to(actor)}
    for repository, image, place in slots.order_by("environment").values_list(
        "repository_id", "image_id", "environment_id"
    ):
        if (repository, image) in used and place in seen:
            used[repository, image].environments.append(seen[place])
    return sorted(used.values(), key=lambda row: (row.repository.name, row.tags[:1], row.image.digest))


def export_fleet(actor: User, kind: str, *, team: str = "", repository: str = "") -> tuple[str, str, Iterator[bytes]]:
    """Return (media type, file name, parts) of the findings of a team or a repository, as `actor` sees them.

    `kind` is a key of FLEET_EXPORTS. An image with unknown packages is in the file, as unknown. Raises NotFound,
    Malformed, and Conflict while the user's last one is not finished.
    """
    if kind not in FLEET_EXPORTS:
        raise NotFound(f"Unknown export. Choose one of: {', '.join(FLEET_EXPORTS)}.")
    scope = scope_for(actor, team=team, repository=repository)
    used = images_in_use(actor, scope.repositories)
    media_type, write = FLEET_EXPORTS[kind]
    return media_type, f"{scope.name}.{kind}", OneAtATime(actor, write(scope, used, actor))


class OneAtATime:
    """The parts of a file, while no other file of this user is written: many would keep all web processes busy.

    A response closes it, also when its reader goes away. It is no generator: one that is collected while it is
    suspended would talk to PostgreSQL at any moment.
    """

    def __init__(self, actor: User, parts: Iterator[bytes]) -> None:
        """Raise Conflict while another file of this user is being written."""
        self._parts = parts
        self._lock = f"findings-export:{actor.pk}"
        self._is_held = locks.take(self._lock)
        if not self._is_held:
            raise Conflict("Another export of findings of yours is being written. Wait until it ends.")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except BaseException:  # its end, too
            self.close()
            raise

    def close(self) -> None:
        """Let the next file begin. Safe to call twice."""
        if self._is_held:
            self._is_held = False
            locks.release(self._lock)


def _findings(used: Used, reader: User) -> list[Finding]:
    """Return the findings of an image; one line without a package for each platform that nobody knows."""
    unknown = [
        Finding("", None, (), None, "unknown", "unknown", f"{digest}: {reason}")
        for digest, reason in unscanned(used.image)
    ]
    found = with_due_dates(used.image, findings_of_image(used.image, reader=reader))
    return [*unknown, *with_waivers(used.image, found, reader)]


def _csv(_scope: Scope, used: Sequence[Used], reader: User) -> Iterator[bytes]:
    rows = (
        finding_row(finding)
        | {
            "repository": each.repository.name,
            "tags": " ".join(each.tags),
            "digest": each.image.digest,
            "environments": " ".join(each.environments),
        }
        for each in used
        for finding in _findings(each, reader)
    )
    return csv_lines(_FIELDS, rows)


def _sarif(scope: Scope, used: Sequence[Used], reader: User) -> Iterator[bytes]:
    """Yield one run, so that a page that takes only some runs takes all findings."""
    items = ((Place(each.name, each.name), _findings(each, reader)) for each in used)
    return sarif_of(f"gravingdock/{scope.name}", items, own=own_ids())


def _openvex(scope: Scope, used: Sequence[Used], reader: User) -> Iterator[bytes]:
    return openvex_of(scope.name, _each_once(used), reader)


def _cyclonedx_vex(scope: Scope, used: Sequence[Used], reader: User) -> Iterator[bytes]:
    return cyclonedx_vex_of(scope.name, _each_once(used), reader)


def _cyclonedx(scope: Scope, used: Sequence[Used], _reader: User) -> Iterator[bytes]:
    return cyclonedx_of(scope.name, ((each.image, each.name) for each in used))


def _spdx(scope: Scope, used: Sequence[Used], _reader: User) -> Iterator[bytes]:
    subjects = (
        Subject(
            each.image, each.name,
            [f"gravingdock:unknown={digest}: {reason}" for digest, reason in unscanned(each.image)],
            packages_in(each.image),
        )
        for each in used
    )  # fmt: skip
    return spdx_of(scope.name, subjects)


def _each_once(used: Sequence[Used]) -> list[Image]:
    """Return the images, each once: two repositories can have the same."""
    return list({each.image.pk: each.image for each in used}.values())


FLEET_EXPORTS: Final[dict[str, tuple[str, Callable[[Scope, Sequence[Used], User], Iterator[bytes]]]]] = {
    "findings.csv": ("text/csv; charset=utf-8", _csv),
    "sarif.json": ("application/sarif+json", _sarif),
    "openvex.json": ("application/openvex+json", _openvex),
    "cdx.json": ("application/vnd.cyclonedx+json", _cyclonedx),
    "spdx.json": ("application/spdx+json", _spdx),
    "vex.cdx.json": ("application/vnd.cyclonedx+json", _cyclonedx_vex),
}
