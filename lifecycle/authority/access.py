"""Look up rows by the ids in a request. Each function returns a row that the user can see, or raises NotFound."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import Group, Membership, Robot, Role, Team, User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.audit.queries import for_list
from lifecycle.authority.models import AccessRequest, HeldGrant, RoleGrant
from lifecycle.authority.queries import (
    access_requests_visible_to,
    environments_visible_to,
    events_visible_to,
    grants_in,
    groups_with_counts,
    images_visible_to,
    repositories_open_to,
    repositories_visible_to,
    roles_with_counts,
    teams_visible_to,
)
from lifecycle.authority.rights import is_above_grants, require
from lifecycle.core.errors import Malformed, MalformedDigest, NotFound, NotPermitted
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment
from lifecycle.registry.models import (
    Image,
    Registry,
    Repository,
    RepositoryImage,
)
from lifecycle.registry.services import MANAGED_NAME

_NO_REPOSITORY = "Repository not found, or you don't have access."
_NO_IMAGE = "Image not found, or you don't have access."


def repository_for(actor: User, repository_id: int, verb: Verb = Verb.IMAGE_VIEW) -> Repository:
    """Return the repository if `actor` can see it and has `verb` on it; raises NotFound, NotPermitted.

    To see it takes a grant. With another verb, who sees its images because it is open is told what is missing.
    """
    rows = _known_to(actor, verb).select_related("team", "registry", "environment", "source")
    return _allowed(actor, rows.filter(pk=repository_id).first(), verb)


def repository_named(actor: User, name: str, verb: Verb = Verb.IMAGE_VIEW) -> Repository:
    """Like `repository_for`, by name. Prefers the managed registry, then the registry with the lowest id."""
    rows = _known_to(actor, verb).select_related("team", "registry", "environment", "source")
    repository = rows.filter(name=name).order_by("-registry__is_managed", "registry_id").first()
    return _allowed(actor, repository, verb)


def lock_repository(actor: User, repository_id: int, verb: Verb) -> Repository:
    """Like `repository_for`, with the row locked until the transaction ends."""
    rows = _known_to(actor, verb).select_related("team").select_for_update(of=("self",))
    return _allowed(actor, rows.filter(pk=repository_id).first(), verb)


def image_for(actor: User, digest: str, verb: Verb = Verb.IMAGE_VIEW) -> Image:
    """Return the image if it is in a repository on which `actor` has `verb`.

    Raises NotFound, with the same message, when the image does not exist, is hidden, or `digest` is malformed.
    """
    try:
        name = Digest.parse(digest).text
    except MalformedDigest:
        raise NotFound(_NO_IMAGE) from None
    image = images_visible_to(actor, verb).filter(digest=name).first()
    if image is None:
        raise NotFound(_NO_IMAGE)
    return image


def open_repository_for(actor: User, repository_id: int) -> Repository:
    """Return the repository if `actor` can see its images, by a grant or because it is open; raises NotFound."""
    rows = repositories_open_to(actor).select_related("team", "registry", "environment", "source")
    return _allowed(actor, rows.filter(pk=repository_id).first(), Verb.IMAGE_VIEW)


def _known_to(actor: User, verb: Verb) -> QuerySet[Repository]:
    return repositories_visible_to(actor) if verb == Verb.IMAGE_VIEW else repositories_open_to(actor)


def _allowed(actor: User, repository: Repository | None, verb: Verb) -> Repository:
    if repository is None:
        raise NotFound(_NO_REPOSITORY)
    if verb != Verb.IMAGE_VIEW:
        require(actor, verb, repository=repository, environment=repository.environment)
    return repository


def event_for(actor: User, event_id: int) -> AuditEvent:
    """Return the event if `actor` can read it; raises NotFound with the same message for missing and hidden events."""
    event = for_list(events_visible_to(actor)).filter(pk=event_id).first()
    if event is None:
        raise NotFound("Event not found, or you don't have access.")
    return event


def team_for(actor: User, slug: str) -> Team:
    """Return the team if `actor` can see it; raises NotFound with the same message for missing and hidden teams."""
    team = teams_visible_to(actor).filter(slug=slug).first()
    if team is None:
        raise NotFound("Team not found, or you don't have access.")
    return team


def people_for(actor: User) -> QuerySet[User]:
    """Return the accounts of all people; raises NotPermitted unless `actor` is an admin."""
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can manage accounts. Ask an admin.")
    return User.objects.filter(kind=User.Kind.PERSON)


def registries_for(actor: User) -> QuerySet[Registry]:
    """Return the managed registry and those that admins added; raises NotPermitted unless `actor` is an admin.

    A registry that only an inventory file names is not among them.
    """
    if not is_above_grants(actor):
        raise NotPermitted("Only admins can manage registries. Ask an admin.")
    return Registry.objects.filter(Q(is_managed=True) | Q(is_added=True))


def registries_to_choose(actor: User) -> list[str]:
    """Return the names of the registries that `actor` can choose for an environment: only an admin can, so [] else."""
    if not is_above_grants(actor):
        return []
    return list(registries_for(actor).filter(is_added=True).order_by("name").values_list("name", flat=True))


def registry_for_target(actor: User, name: str) -> Registry | None:
    """Return the added registry with this name, locked, as the place of an environment; None for the managed one.

    Its credentials are those of the site, so only an admin decides. Raises NotPermitted, Malformed.
    """
    known = registries_for(actor)
    if name in {"", MANAGED_NAME}:
        return None
    chosen = known.select_for_update().filter(name=name, is_added=True).first()
    if chosen is None:
        raise Malformed(f"There is no registry {name[:60]}. An admin can add it.", field="registry")
    return chosen


def registry_for(actor: User, registry_id: int) -> Registry:
    """Return one of `registries_for`; raises NotPermitted, NotFound."""
    registry = registries_for(actor).filter(pk=registry_id).first()
    if registry is None:
        raise NotFound("Registry not found.")
    return registry


def person_for(actor: User, person_id: int) -> User:
    """Return a person if `actor` is that person, an admin, or sees a team of that person; raises NotFound."""
    people = User.objects.filter(kind=User.Kind.PERSON).select_related("secret_seen_by")
    if not actor.is_superuser:
        teams = teams_visible_to(actor)
        people = people.filter(
            Q(pk=actor.pk)
            | Exists(HeldGrant.objects.filter(user=OuterRef("pk"), team__in=teams))
            | Exists(Membership.objects.filter(user=OuterRef("pk"), team__in=teams))
        )
    person = people.filter(pk=person_id).first()
    if person is None:
        raise NotFound("Account not found, or you don't have access.")
    return person


def access_request_for(actor: User, request_id: int) -> AccessRequest:
    """Return an access request that `actor` made or decides about; raises NotFound."""
    row = access_requests_visible_to(actor).filter(pk=request_id).first()
    if row is None:
        raise NotFound("Access request not found, or you don't have access.")
    return row


def grant_in(team: Team, grant_id: int) -> RoleGrant:
    """Return one grant of a team; raises NotFound."""
    grant = grants_in(team).filter(pk=grant_id).first()
    if grant is None:
        raise NotFound("Grant not found, or you don't have access.")
    return grant


def group_for(actor: User, group_id: int) -> Group:
    """Return a group that `actor` can see, with its counts; raises NotFound."""
    group = groups_with_counts(actor).filter(pk=group_id).first()
    if group is None:
        raise NotFound("Group not found, or you don't have access.")
    return group


def robot_in(team: Team, robot_id: int) -> Robot:
    """Return one robot of a team; raises NotFound."""
    robot = (
        Robot.objects.filter(team=team, pk=robot_id)
        .select_related("user__robot__responsible", "created_by", "responsible")
        .first()
    )
    if robot is None:
        raise NotFound("Robot not found, or you don't have access.")
    return robot


def role_called(slug: str) -> Role:
    """Return a role with its `holders`; raises NotFound."""
    role = roles_with_counts().filter(slug=slug).first()
    if role is None:
        raise NotFound("Role not found, or you don't have access.")
    return role


def environment_for(actor: User, *, team: str, slug: str) -> Environment:
    """Return the environment `slug` of a team that `actor` can see; raises NotFound."""
    environment = environments_visible_to(actor).filter(team__slug=team, slug=slug).first()
    if environment is None:
        raise NotFound("Environment not found, or you don't have access.")
    return environment


def repository_of(visible: QuerySet[Repository], team: str, name: str) -> Repository:
    """Return the repository `name` of `team` from `visible`; raises NotFound when it is absent."""
    rows = visible.select_related("team", "registry", "environment", "source")
    repository = rows.filter(team__slug=team, name=name).first()
    if repository is None:
        raise NotFound(_NO_REPOSITORY)
    return repository


def image_in(repository: Repository, digest: str) -> RepositoryImage:
    """Return the row that links the image `digest` to `repository`, with its image and pusher; raises NotFound."""
    membership = (
        RepositoryImage.objects.select_related("image", "pushed_by")
        .filter(repository=repository, image__digest=digest, removed_at=None)
        .exclude(image__kind=Image.Kind.ARTIFACT)
        .first()
    )
    if membership is None:
        raise NotFound(_NO_IMAGE)
    return membership
