"""What a user may see, as joins on the grants themselves: never a list of ids made in Python."""

from __future__ import annotations

from django.db.models import CharField, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL

from accounts.models import Membership, Team, User
from accounts.verbs import Verb
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.models import RoleGrant
from lifecycle.promotion.models import Environment
from lifecycle.registry.models import Image, Repository, RepositoryImage


def live_grants(actor: User, verb: Verb) -> QuerySet[RoleGrant]:
    """Return the grants of an active user that carry `verb` and have not expired."""
    if not actor.is_active:
        return RoleGrant.objects.none()
    return RoleGrant.objects.filter(RoleGrant.live(), user=actor, role__verbs__contains=[verb.value])


def covering_grants(actor: User, verb: Verb, *, team: str, family: str, environment: str) -> QuerySet[RoleGrant]:
    """Return the grants that carry `verb` over an outer row, whose team, family and environment are so named.

    For `Exists` in a list of that row: what `access.grants_of` answers for one object, as a join.
    """
    return (
        live_grants(actor, verb)
        .filter(team=OuterRef(team))
        .filter(Q(environment=None) | Q(environment=OuterRef(environment)))
        .annotate(subject_family=ExpressionWrapper(OuterRef(family), output_field=CharField()))
        .filter(subject_family__like=F("repository_like"))
    )


def repositories_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[Repository]:
    """Return the repositories over which `actor` holds `verb`, in one query.

    A grant for one environment shows that environment's repositories only, as a pull obeys it.
    """
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return Repository.objects.all()
    grants = covering_grants(actor, verb, team="team", family="family", environment="environment")
    return Repository.objects.filter(Exists(grants))


def images_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[Image]:
    """Return the images in some repository over which `actor` holds `verb`."""
    held = RepositoryImage.objects.filter(
        image=OuterRef("pk"), repository__in=repositories_visible_to(actor, verb), removed_at=None
    )
    return Image.objects.filter(Exists(held))


def teams_visible_to(actor: User) -> QuerySet[Team]:
    """Return the teams `actor` belongs to or holds any grant in; all of them for an admin."""
    if not actor.is_active:
        return Team.objects.none()
    if actor.is_superuser or actor.kind == User.Kind.SYSTEM:
        return Team.objects.all()
    return Team.objects.filter(
        Exists(RoleGrant.objects.filter(RoleGrant.live(), user=actor, team=OuterRef("pk")))
        | Exists(Membership.objects.filter(user=actor, team=OuterRef("pk")))
    )


def teams_where(actor: User, verb: Verb) -> QuerySet[Team]:
    """Return the teams over which, as a whole, `actor` holds `verb`."""
    if not actor.is_active:
        return Team.objects.none()
    if actor.is_superuser and verb in ADMIN_VERBS:
        return Team.objects.all()
    grants = live_grants(actor, verb).filter(team=OuterRef("pk"), repository_pattern="*", environment=None)
    return Team.objects.filter(Exists(grants))


def environments_visible_to(actor: User) -> QuerySet[Environment]:
    """Return the environments of the teams `actor` can see."""
    return Environment.objects.filter(team__in=teams_visible_to(actor)).select_related("team")


def people_who(verb: Verb, *, team: Team, family: str, environment: Environment | None = None) -> QuerySet[User]:
    """Return the active people who hold `verb` over a family of a team, maybe in one environment."""
    in_place = Q(environment=None)
    if environment is not None:
        in_place |= Q(environment=environment)
    grants = (
        RoleGrant.objects.filter(RoleGrant.live(), in_place, team=team, role__verbs__contains=[verb.value])
        .annotate(subject_family=RawSQL("%s::text", (family,), output_field=CharField()))
        .filter(subject_family__like=F("repository_like"), user=OuterRef("pk"))
    )
    return User.objects.filter(Exists(grants), is_active=True, kind=User.Kind.PERSON).order_by("username")
