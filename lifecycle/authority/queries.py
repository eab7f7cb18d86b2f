"""Querysets of the rows that a user can see.

Grants become SQL conditions. The rows that they cover are never listed in Python.
"""

from __future__ import annotations

from typing import Any

from django.db.models import CharField, Count, Exists, F, IntegerField, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Now

from accounts.models import ApiToken, Group, GroupMember, Membership, Robot, Role, Team, User
from accounts.tokens import KEYLESS
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.constants import ADMIN_VERBS
from lifecycle.authority.covers import OPEN, covers_of, whole_teams
from lifecycle.authority.grants import applies_in, live_grants, over_whole_team
from lifecycle.authority.models import AccessRequest, HeldGrant, RoleGrant
from lifecycle.authority.rights import makers_of, why_suspended
from lifecycle.environments.models import Environment
from lifecycle.registry.models import Image, Repository, RepositoryImage, Tag


def covered(actor: User, verb: Verb, *, team: str, family: str, environment: str) -> Q:
    """Return the condition that `actor` has `verb` on a row.

    `team`, `family` and `environment` name the lookups from the row to these values. `rights.grants_of` does the same
    check for one object. The grants are read here and put into the condition as values. With a join, the planner cannot
    estimate how many rows the grants select: a page took 2.4 s with 100,000 images. A user has few grants, and the rows
    that they cover are never listed. A robot is bounded by its makers: the row must be covered for each of them too.
    """
    condition = Q()
    for cover in covers_of(actor, verb):
        condition &= cover.as_q(team=team, family=family, environment=environment)
    return condition


def repositories_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[Repository]:
    """Return the repositories on which `actor` has `verb`. The grants are read now; the queryset is lazy.

    A grant for one environment shows only the repositories of that environment. The same rule applies to pulls.
    """
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return Repository.objects.all()
    return Repository.objects.filter(covered(actor, verb, team="team", family="family", environment="environment"))


def repositories_open_to(actor: User) -> QuerySet[Repository]:
    """Return the repositories whose images `actor` can see: by a grant, or because they are internal or public.

    This shows images only. What a team does with them (requests, rebuilds, alerts, pen tests, where they run) needs a
    grant: `repositories_visible_to`.
    """
    granted = repositories_visible_to(actor)
    if not actor.is_active or why_suspended(actor) or actor.kind == User.Kind.SYSTEM:
        return granted
    return granted | Repository.objects.filter(visibility__in=OPEN)


def images_visible_to(actor: User, verb: Verb = Verb.IMAGE_VIEW) -> QuerySet[Image]:
    """Return the images in a repository on which `actor` has `verb`. To see them, one that is open is enough."""
    among = repositories_open_to(actor) if verb == Verb.IMAGE_VIEW else repositories_visible_to(actor, verb)
    memberships = RepositoryImage.objects.filter(image=OuterRef("pk"), repository__in=among, removed_at=None)
    return Image.objects.filter(Exists(memberships))


def teams_visible_to(actor: User) -> QuerySet[Team]:
    """Return the teams in which `actor` is a member or has a live grant; all teams for an admin."""
    if not actor.is_active or why_suspended(actor):
        return Team.objects.none()
    if actor.is_superuser or actor.kind == User.Kind.SYSTEM:
        return Team.objects.all()
    return Team.objects.filter(
        Exists(live_grants(actor).filter(team=OuterRef("pk")))
        | Exists(Membership.objects.filter(user=actor, team=OuterRef("pk")))
    )


def teams_of(actor: User) -> QuerySet[Team]:
    """Return the teams that `actor` belongs to: by membership or by a live grant, also for an admin; by slug."""
    is_own = Exists(live_grants(actor).filter(team=OuterRef("pk"))) | Exists(
        Membership.objects.filter(user=actor, team=OuterRef("pk"))
    )
    return Team.objects.filter(is_own).order_by("slug")


def teams_askable_by(actor: User) -> QuerySet[Team]:
    """Return the teams that `actor` can ask for a role: those they see, and those with a repository open to them."""
    is_open = Exists(repositories_open_to(actor).filter(team=OuterRef("pk")))
    return Team.objects.filter(Q(pk__in=teams_visible_to(actor).values("pk")) | is_open)


def access_requests_visible_to(actor: User) -> QuerySet[AccessRequest]:
    """Return the access requests that `actor` made, or decides about (team.manage); page them by -id."""
    rows = AccessRequest.objects.select_related("team", "requester", "role", "environment", "decided_by")
    return rows.filter(Q(requester=actor) | Q(team__in=teams_where(actor, Verb.TEAM_MANAGE)))


def access_requests_in_inbox(actor: User) -> QuerySet[AccessRequest]:
    """Return the open access requests of others that `actor` decides about as an owner of the team.

    Admins can decide about all, but only those of their own teams wait for them.
    """
    if not actor.is_person:
        return AccessRequest.objects.none()
    owned = live_grants(actor, Verb.TEAM_MANAGE).filter(over_whole_team()).values("team")
    return access_requests_visible_to(actor).filter(state="open", team__in=owned).exclude(requester=actor)


def grants_held_by(actor: User) -> QuerySet[HeldGrant]:
    """Return the live grants of `actor` with role, environment and the group of each, in order of their creation."""
    rows = live_grants(actor).select_related("role", "environment", "group__team", "through__team")
    return rows.order_by("pk", "through")


def teams_where(actor: User, verb: Verb) -> QuerySet[Team]:
    """Return the teams on which, as a whole, `actor` has `verb`; for a robot, those where its makers have it too."""
    if not actor.is_active or why_suspended(actor):
        return Team.objects.none()
    rows = _teams_of(actor, verb)
    for maker in makers_of(actor):
        rows = rows.filter(pk__in=_teams_of(maker, verb).values("pk"))
    return rows


def _teams_of(actor: User, verb: Verb) -> QuerySet[Team]:
    if actor.kind == User.Kind.SYSTEM or (actor.is_superuser and verb in ADMIN_VERBS):
        return Team.objects.all()
    grants = live_grants(actor, verb).filter(over_whole_team(), team=OuterRef("pk"))
    return Team.objects.filter(Exists(grants))


def environments_visible_to(actor: User) -> QuerySet[Environment]:
    """Return the environments of the teams `actor` can see, with team and registry."""
    return Environment.objects.filter(team__in=teams_visible_to(actor)).select_related("team", "registry")


def people_who(verb: Verb, *, team: Team, family: str | None, environment: Environment | None = None) -> QuerySet[User]:
    """Return the active people who have `verb` on a family of a team, or on all of it for None, ordered by name.

    With `environment`, grants for that environment count too.
    """
    grants = live_grants(verb=verb).filter(applies_in(environment), team=team, user=OuterRef("pk"))
    if family is None:
        grants = grants.filter(repository_pattern="*")
    else:
        subject = RawSQL("%s::text", (family,), output_field=CharField())
        grants = grants.annotate(subject_family=subject).filter(subject_family__like=F("repository_like"))
    return User.objects.filter(Exists(grants), is_active=True, kind=User.Kind.PERSON).order_by("username")


def images_with_places(actor: User) -> QuerySet[Image]:
    """Return the images that `actor` can see, with their visible repositories and tags.

    `places_seen` and `tags_seen` contain only rows in repositories that `actor` can see.
    """
    visible = repositories_open_to(actor)
    memberships = RepositoryImage.objects.filter(repository__in=visible, removed_at=None)
    return images_visible_to(actor).prefetch_related(
        Prefetch(
            "repository_images",
            queryset=memberships.select_related("repository").order_by("repository__name", "pk"),
            to_attr="places_seen",
        ),
        Prefetch("tags", queryset=Tag.objects.filter(repository__in=visible), to_attr="tags_seen"),
    )


def events_visible_to(actor: User) -> QuerySet[AuditEvent]:
    """Return the events of the teams on which `actor` has audit.read; all events for an admin."""
    if actor.is_active and actor.is_superuser:
        return AuditEvent.objects.all()
    teams = whole_teams(actor, Verb.AUDIT_READ)  # as values: a subquery takes longer to plan than the page to read
    return AuditEvent.objects.filter(Q(team__isnull=False) if teams is None else Q(team__in=sorted(teams)))


def audited_teams(actor: User) -> QuerySet[Team]:
    """Return the teams whose audit log `actor` can read."""
    return teams_where(actor, Verb.AUDIT_READ)


def count_of(rows: QuerySet[Any], of: str, what: str = "pk") -> Coalesce:
    """Return a subquery: the number of distinct `what` of `rows` for each outer row.

    `of` is the field of `rows` that points to the outer row.
    """
    counted = rows.filter(**{of: OuterRef("pk")}).order_by().values(of).annotate(n=Count(what, distinct=True))
    return Coalesce(Subquery(counted.values("n"), output_field=IntegerField()), 0)


def teams_with_counts(actor: User) -> QuerySet[Team]:
    """Return the teams that `actor` can see, for pages by (slug, id).

    Each team has `people`, `robot_count` (active robots) and `place_count` (environments).
    """
    return with_counts(teams_visible_to(actor))


def with_counts(teams: QuerySet[Team]) -> QuerySet[Team]:
    """Return `teams` with the counts of `teams_with_counts`."""
    grants = live_grants().filter(user__kind=User.Kind.PERSON)
    return teams.annotate(
        people=count_of(grants, "team", "user"),
        robot_count=count_of(Robot.objects.filter(user__is_active=True), "team"),
        place_count=count_of(Environment.objects.all(), "team"),
    )


def grants_in(team: Team) -> QuerySet[RoleGrant]:
    """Return all grants of a team with their user or group and the user who granted them; page by (holder_name, id)."""
    rows = RoleGrant.objects.filter(team=team).select_related("user", "group__team", "role", "environment")
    return rows.select_related("granted_by").annotate(holder_name=Coalesce("user__username", "group__slug"))


def groups_visible_to(actor: User) -> QuerySet[Group]:
    """Return the groups of the installation, for everybody, and those of the teams that `actor` can see."""
    if not actor.is_active or why_suspended(actor):
        return Group.objects.none()
    return Group.objects.filter(Q(team=None) | Q(team__in=teams_visible_to(actor))).select_related("team")


def groups_with_counts(actor: User) -> QuerySet[Group]:
    """Return the groups that `actor` can see, with `member_count` and `grant_count`; page by (slug, id)."""
    return with_group_counts(groups_visible_to(actor))


def with_group_counts(groups: QuerySet[Group]) -> QuerySet[Group]:
    """Return the groups with `member_count` and `grant_count`, whoever asks."""
    return groups.annotate(
        member_count=count_of(GroupMember.objects.all(), "group"),
        grant_count=count_of(RoleGrant.objects.all(), "group"),
    )


def sees_members(actor: User, group: Group) -> bool:
    """Return whether `actor` can see who is in a visible group.

    That is its team, everybody in the group, everybody in a team where it has a role, and admins.
    """
    if group.team is not None or actor.is_superuser or actor.kind == User.Kind.SYSTEM:
        return True
    own = GroupMember.objects.filter(Q(group=group) | Q(group__containers__group=group), user=actor)
    return own.exists() or RoleGrant.objects.filter(group=group, team__in=teams_visible_to(actor)).exists()


def members_seen(actor: User, group: Group) -> QuerySet[GroupMember]:
    """Return the members of a visible group if `actor` can see them, else none; people first, then by number."""
    rows = group.members.all() if sees_members(actor, group) else GroupMember.objects.none()
    return rows.select_related("user", "member__team", "added_by")


def groups_with_member(actor: User, group: Group) -> QuerySet[Group]:
    """Return the groups that contain `group` and that `actor` can see, by name."""
    return groups_visible_to(actor).filter(members__member=group).order_by("slug", "pk")


def grants_of_group(actor: User, group: Group) -> QuerySet[RoleGrant]:
    """Return the grants of a group in the teams that `actor` can see, by team."""
    rows = RoleGrant.objects.filter(group=group, team__in=teams_visible_to(actor))
    return rows.select_related("team", "role", "environment", "granted_by", "group__team").order_by("team__slug", "pk")


def robots_in(team: Team) -> QuerySet[Robot]:
    """Return the robots of a team with `token_count`, the number of tokens not revoked; page by (name, id)."""
    return (
        Robot.objects.filter(team=team)
        .select_related("user__robot__responsible", "created_by", "responsible")
        .annotate(token_count=count_of(live_tokens(), "user__robot"))
    )


def live_tokens() -> QuerySet[ApiToken]:
    """Return the tokens that are not revoked, with the token that was used to create each.

    Expired tokens are included, and pages mark them; expired registry sign-ins and those of CI jobs are not.
    """
    rows = ApiToken.objects.filter(revoked_at=None).select_related("parent", "made_by")
    return rows.exclude(Q(kind=ApiToken.Kind.REFRESH) | Q(service=KEYLESS), expires_at__lte=Now())


def roles_with_counts() -> QuerySet[Role]:
    """Return all roles with `holders`, the number of users with a live grant of the role."""
    return Role.objects.annotate(holders=count_of(live_grants(), "role", "user"))
