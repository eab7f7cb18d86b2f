"""What a user may see, as conditions made of the grants: never a list of what they cover made in Python."""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Count, Exists, F, IntegerField, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce

from accounts.models import ApiToken, Membership, Robot, Role, Team, User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.grants import in_place, live_grants, over_whole_team
from lifecycle.authority.models import RoleGrant
from lifecycle.core.context import once_a_read
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Image, Repository, RepositoryImage, Tag


def covered(actor: User, verb: Verb, *, team: str, family: str, environment: str) -> Q:
    """Return the condition that `actor` holds `verb` over a row, whose team, family and environment are so named.

    What `access.grants_of` answers for one object. The grants are read here and put into the condition as values: of a
    join on the grants the planner can only guess how much it lets through, and guessed 2.4 s for a page of 100,000
    images. Grants are few; what they cover is never listed.
    """
    whole: set[int] = set()
    parts: list[tuple[int, str, int | None]] = []
    for team_id, pattern, like, environment_id in _scopes(actor, verb):
        if pattern == "*" and environment_id is None:
            whole.add(team_id)
        else:
            parts.append((team_id, "" if pattern == "*" else like, environment_id))
    condition = Q(**{f"{team}__in": sorted(whole)})
    for team_id, like, environment_id in sorted(parts, key=str):
        if team_id not in whole:
            part = Q(**{team: team_id})
            part &= Q(**{f"{family}__like": like}) if like else Q()
            part &= Q(**{environment: environment_id}) if environment_id is not None else Q()
            condition |= part
    return condition


def _scopes(actor: User, verb: Verb) -> list[tuple[int, str, str, int | None]]:
    """Return (team, pattern, pattern as LIKE has it, environment) of each live grant; one query."""
    rows = live_grants(actor, verb).values_list("team_id", "repository_pattern", "repository_like", "environment_id")
    return once_a_read(("scopes", actor.pk, verb), lambda: list(rows.distinct()))


def repositories_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[Repository]:
    """Return the repositories over which `actor` holds `verb`; their grants are read at once, the rows when asked for.

    A grant for one environment shows that environment's repositories only, as a pull obeys it.
    """
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return Repository.objects.all()
    return Repository.objects.filter(covered(actor, verb, team="team", family="family", environment="environment"))


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
        Exists(live_grants(actor).filter(team=OuterRef("pk")))
        | Exists(Membership.objects.filter(user=actor, team=OuterRef("pk")))
    )


def teams_where(actor: User, verb: Verb) -> QuerySet[Team]:
    """Return the teams over which, as a whole, `actor` holds `verb`."""
    if not actor.is_active:
        return Team.objects.none()
    if actor.is_superuser and verb in ADMIN_VERBS:
        return Team.objects.all()
    grants = live_grants(actor, verb).filter(over_whole_team(), team=OuterRef("pk"))
    return Team.objects.filter(Exists(grants))


def environments_visible_to(actor: User) -> QuerySet[Environment]:
    """Return the environments of the teams `actor` can see."""
    return Environment.objects.filter(team__in=teams_visible_to(actor)).select_related("team")


def people_who(verb: Verb, *, team: Team, family: str, environment: Environment | None = None) -> QuerySet[User]:
    """Return the active people who hold `verb` over a family of a team, maybe in one environment."""
    grants = (
        live_grants(verb=verb)
        .filter(in_place(environment), team=team)
        .annotate(subject_family=RawSQL("%s::text", (family,), output_field=CharField()))
        .filter(subject_family__like=F("repository_like"), user=OuterRef("pk"))
    )
    return User.objects.filter(Exists(grants), is_active=True, kind=User.Kind.PERSON).order_by("username")


def images_with_places(actor: User, *, repository: str = "", tag: str = "") -> QuerySet[Image]:
    """Return what `actor` sees, with `places_seen` and `tags_seen`: only those repositories that `actor` sees.

    Given a repository's name or a tag's, only what is there, or what such a tag points at there.
    """
    visible = repositories_visible_to(actor)
    held = RepositoryImage.objects.filter(repository__in=visible, removed_at=None)
    tags = Tag.objects.filter(repository__in=visible)
    asked = Q(repository__name=repository) if repository else Q()
    found = images_visible_to(actor)
    if repository:
        found = found.filter(Exists(held.filter(asked, image=OuterRef("pk"))))
    if tag:
        found = found.filter(Exists(tags.filter(asked, name=tag, image=OuterRef("pk"))))
    return found.prefetch_related(
        Prefetch(
            "repository_images",
            queryset=held.select_related("repository").order_by("repository__name", "pk"),
            to_attr="places_seen",
        ),
        Prefetch("tags", queryset=tags, to_attr="tags_seen"),
    )


def events_visible_to(actor: User) -> QuerySet[AuditEvent]:
    """Return the events of the teams over which `actor` holds audit.read; all of them for an admin."""
    if actor.is_active and actor.is_superuser:
        return AuditEvent.objects.all()
    return AuditEvent.objects.filter(team__in=teams_where(actor, Verb.AUDIT_READ))


def audited_teams(actor: User) -> QuerySet[Team]:
    """Return the teams whose trail `actor` may read."""
    return teams_where(actor, Verb.AUDIT_READ)


def count_of(rows: QuerySet[Any], of: str, what: str = "pk") -> Coalesce:
    """Return how many distinct `what` of `rows` belong to each outer row, as a subquery of its own."""
    counted = rows.filter(**{of: OuterRef("pk")}).order_by().values(of).annotate(n=Count(what, distinct=True))
    return Coalesce(Subquery(counted.values("n"), output_field=IntegerField()), 0)


def teams_with_counts(actor: User) -> QuerySet[Team]:
    """Return the teams `actor` can see with `people`, `robot_count` and `place_count`; page by (slug, id)."""
    grants = live_grants().filter(user__kind=User.Kind.PERSON)
    return teams_visible_to(actor).annotate(
        people=count_of(grants, "team", "user"),
        robot_count=count_of(Robot.objects.filter(user__is_active=True), "team"),
        place_count=count_of(Environment.objects.all(), "team"),
    )


def grants_in(team: Team) -> QuerySet[RoleGrant]:
    """Return every grant of a team with who holds it and who gave it; page by (user__username, id)."""
    return RoleGrant.objects.filter(team=team).select_related("user", "role", "environment", "granted_by")


def robots_in(team: Team) -> QuerySet[Robot]:
    """Return the robots of a team with `token_count` live tokens; page by (name, id)."""
    return (
        Robot.objects.filter(team=team)
        .select_related("user", "created_by")
        .annotate(token_count=count_of(live_tokens(), "user__robot"))
    )


def live_tokens() -> QuerySet[ApiToken]:
    """Return the tokens that people and robots made and have not revoked; the expired ones are shown as such."""
    return ApiToken.objects.filter(revoked_at=None).exclude(kind=ApiToken.Kind.REFRESH)


def roles_with_counts() -> QuerySet[Role]:
    """Return every role with `holders`: how many users hold it somewhere."""
    return Role.objects.annotate(holders=count_of(live_grants(), "role", "user"))
