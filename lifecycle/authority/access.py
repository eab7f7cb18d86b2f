"""The only way from an id in a request to a row of the ground floor: the row if the user may see it, else NotFound."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.models import Robot, Role, Team, User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.audit.queries import for_list
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.queries import (
    environments_visible_to,
    events_visible_to,
    grants_in,
    images_visible_to,
    repositories_visible_to,
    roles_with_counts,
    teams_visible_to,
)
from lifecycle.authority.rights import require
from lifecycle.core.errors import MalformedDigest, NotFound
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment
from lifecycle.registry.models import (
    Image,
    Repository,
    RepositoryImage,
)

_NO_REPOSITORY = "There is no such repository, or you may not see it."
_NO_IMAGE = "There is no such image, or you may not see it."


def repository_for(actor: User, repository_id: int, verb: Verb = Verb.IMAGE_VIEW) -> Repository:
    """Return the repository if `actor` sees it and holds `verb` over it; raises NotFound, NotPermitted."""
    rows = repositories_visible_to(actor).select_related("team", "registry", "environment", "source")
    return _allowed(actor, rows.filter(pk=repository_id).first(), verb)


def repository_named(actor: User, name: str, verb: Verb = Verb.IMAGE_VIEW) -> Repository:
    """As `repository_for`, by name in the managed registry, else in the one registry that has the name."""
    rows = repositories_visible_to(actor).select_related("team", "registry", "environment", "source")
    found = rows.filter(name=name).order_by("-registry__is_managed", "registry_id").first()
    return _allowed(actor, found, verb)


def lock_repository(actor: User, repository_id: int, verb: Verb) -> Repository:
    """As `repository_for`, with the row locked until the transaction ends."""
    rows = repositories_visible_to(actor).select_related("team").select_for_update(of=("self",))
    return _allowed(actor, rows.filter(pk=repository_id).first(), verb)


def image_for(actor: User, digest: str, verb: Verb = Verb.IMAGE_VIEW) -> Image:
    """Return the image if it lies in a repository over which `actor` holds `verb`.

    Raises NotFound when it is absent, hidden, or no digest at all: one answer.
    """
    try:
        name = Digest.parse(digest).text
    except MalformedDigest:
        raise NotFound(_NO_IMAGE) from None
    found = images_visible_to(actor, verb).filter(digest=name).first()
    if found is None:
        raise NotFound(_NO_IMAGE)
    return found


def _allowed(actor: User, found: Repository | None, verb: Verb) -> Repository:
    if found is None:
        raise NotFound(_NO_REPOSITORY)
    if verb != Verb.IMAGE_VIEW:
        require(actor, verb, repository=found, environment=found.environment)
    return found


def event_for(actor: User, event_id: int) -> AuditEvent:
    """Return one event if `actor` may read it; raises NotFound for absent and hidden alike."""
    event = for_list(events_visible_to(actor)).filter(pk=event_id).first()
    if event is None:
        raise NotFound("There is no such event, or you may not read it.")
    return event


def team_for(actor: User, slug: str) -> Team:
    """Return the team if `actor` may see it; raises NotFound for absent and hidden alike."""
    team = teams_visible_to(actor).filter(slug=slug).first()
    if team is None:
        raise NotFound("There is no such team, or you may not see it.")
    return team


def grant_in(team: Team, grant_id: int) -> RoleGrant:
    """Return one grant of a team; raises NotFound."""
    grant = grants_in(team).filter(pk=grant_id).first()
    if grant is None:
        raise NotFound("There is no such grant.")
    return grant


def robot_in(team: Team, robot_id: int) -> Robot:
    """Return one robot of a team; raises NotFound."""
    robot = Robot.objects.filter(team=team, pk=robot_id).select_related("user", "created_by").first()
    if robot is None:
        raise NotFound("There is no such robot.")
    return robot


def role_called(slug: str) -> Role:
    """Return a role with its `holders`; raises NotFound."""
    role = roles_with_counts().filter(slug=slug).first()
    if role is None:
        raise NotFound("There is no such role.")
    return role


def environment_for(actor: User, *, team: str, slug: str) -> Environment:
    """Return an environment of a team `actor` can see; raises NotFound."""
    environment = environments_visible_to(actor).filter(team__slug=team, slug=slug).first()
    if environment is None:
        raise NotFound(f"Team {team} has no environment {slug}.")
    return environment


def repository_of(visible: QuerySet[Repository], team: str, name: str) -> Repository:
    """Return the repository `name` of `team` among `visible`; raises NotFound when absent or hidden."""
    found = (
        visible.select_related("team", "registry", "environment", "source").filter(team__slug=team, name=name).first()
    )
    if found is None:
        raise NotFound(_NO_REPOSITORY)
    return found


def image_in(repository: Repository, digest: str) -> RepositoryImage:
    """Return the membership of the image `digest` in `repository`, with both ends; raises NotFound."""
    found = (
        RepositoryImage.objects.select_related("image", "pushed_by")
        .filter(repository=repository, image__digest=digest, removed_at=None)
        .exclude(image__kind=Image.Kind.ARTIFACT)
        .first()
    )
    if found is None:
        raise NotFound(_NO_IMAGE)
    return found
