"""What a verified sign-in changes: the account, its identity, and the groups and roles that its claims give.

Everything is one transaction. Each change has an audit event of its own, by the system user, with the provider.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from django.db import transaction

from accounts.models import Group, GroupMember, Identity, IdentityReset, Team, User
from accounts.queries import system_user
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import UserCreated
from lifecycle.audit.details_of_groups import IdentityDetails
from lifecycle.authority.identity import keep_mail
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.resets import note_reset
from lifecycle.authority.services.groups import add_person, remove_member
from lifecycle.authority.services.teams import end_grant, lock_groups, write_grant
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, NotPermitted
from lifecycle.oidc.types import Person
from lifecycle.sso.claims import Outcome, outcomes_of, values_at
from lifecycle.sso.models import ClaimRule, IdentityProvider
from lifecycle.sso.queries import rules_of

_USERNAME_MAX: Final = 60  # characters, as for accounts that admins create
_NAME_MAX: Final = 120
# A scope: role, team, pattern, environment.
Scope = tuple[int, int, str, int | None]


@transaction.atomic
def sign_in(person: Person, provider: IdentityProvider) -> tuple[User, str]:
    """Return (account, why it may not come in after all, "" if it may), with its groups and roles as the claims say.

    The account is that of the identity; else a new one, if the provider creates accounts. A mail finds no account,
    unless an admin has allowed it, and then only one that both sides verified and that is no admin's.
    A claim that is missing though a rule reads it gives nothing, takes what the provider had given, and refuses.
    Raises NotPermitted when nobody may come in; nothing is stored then.
    """
    outcomes = outcomes_of(rules_of(provider), person.claims())
    lock_for(provider)
    identity = Identity.objects.select_for_update().filter(
        issuer=person.issuer, subject=person.subject, ended_at=None
    ).first()  # fmt: skip
    user = identity.user if identity is not None else _account_for(person, provider)
    if not user.is_active or not user.is_person:
        raise NotPermitted("This account is deactivated. Ask an admin.")
    if identity is None:
        identity = link(user, person, provider, actor=system_user())
    missing = next((outcome.problem for outcome in outcomes if outcome.problem), "")
    if identity.verified_mail and identity.verified_mail != person.verified_mail[:254]:
        keep_mail(user, identity.verified_mail)  # with another mail at the provider, it is the same person
    identity.verified_mail = person.verified_mail[:254]
    identity.claims = claims_kept(outcomes, person)
    identity.last_used_at = clock.now()
    identity.save(update_fields=["verified_mail", "claims", "last_used_at"])
    apply(user, provider, [] if missing else outcomes)
    return user, missing


def lock_for(provider: IdentityProvider) -> None:
    """Lock the teams in which the provider gives roles, in order, and then the groups, as everywhere."""
    teams = set(provider.rules.filter(team__isnull=False).values_list("team", flat=True))
    teams |= set(RoleGrant.objects.filter(provider=provider.slug).values_list("team", flat=True))
    list(Team.objects.select_for_update(no_key=True).filter(pk__in=teams).order_by("pk"))
    lock_groups()


def claims_kept(outcomes: Sequence[Outcome], person: Person) -> dict[str, list[str]]:
    """Return {path: values} of the claims that rules read and that are there."""
    return {
        outcome.rule.claim: values_at(person.claims(), outcome.rule.claim)
        for outcome in outcomes
        if not outcome.problem
    }


def link(user: User, person: Person, provider: IdentityProvider, *, actor: User) -> Identity:
    """Store that `person` signs in as `user`, and record it; raises Conflict when somebody has the identity."""
    present = Identity.objects.filter(issuer=person.issuer, subject=person.subject, ended_at=None).first()
    if present is not None:
        raise Conflict("This identity belongs to an account already. Unlink it there first.")
    identity = Identity.objects.create(
        user=user, issuer=person.issuer, subject=person.subject, verified_mail=person.verified_mail[:254]
    )
    details = IdentityDetails(user=user.username, provider=provider.slug, subject=person.subject)
    audit.record(Action.IDENTITY_LINKED, actor=actor, subject=user, details=details)
    events.publish(events.RightsChanged((user.pk,)))  # votes of two accounts of one person no longer count
    return identity


def _account_for(person: Person, provider: IdentityProvider) -> User:
    mail = person.verified_mail
    if mail:
        known = list(User.objects.select_for_update().filter(email__iexact=mail, kind=User.Kind.PERSON)[:2])
        if provider.links_by_mail and len(known) == 1 and _may_be_found(known[0]):
            if provider.created_by is not None and provider.created_by != known[0]:
                # Whoever chooses the provider can say who its people are.
                note_reset(known[0], actor=provider.created_by, kind=IdentityReset.Kind.IDENTITY)
            return known[0]
        if known:
            raise NotPermitted(
                "An account with your mail exists. Sign in to it with its password, and link this provider on your"
                " account page."
            )
    if not provider.creates_accounts:
        raise NotPermitted("You have no account here. Ask an admin to create one, then link this provider to it.")
    return _create(person, provider)


def _may_be_found(user: User) -> bool:
    return user.is_active and not user.is_superuser and user.email_verified_at is not None


def _create(person: Person, provider: IdentityProvider) -> User:
    name = _text(person, "name")
    user = User(
        username=_free_name(_text(person, provider.username_claim)),
        full_name=name if name.isprintable() else "",
        email=person.verified_mail[:254],
        email_verified_at=clock.now() if person.verified_mail else None,
    )
    user.set_unusable_password()
    user.save(force_insert=True)
    details = UserCreated(user=user.username, is_admin=False, secret_kind=f"sign-in with {provider.slug}")
    audit.record(Action.USER_CREATED, actor=system_user(), subject=user, details=details)
    return user


def _text(person: Person, claim: str) -> str:
    value = person.claims().get(claim)
    return value.strip()[:_NAME_MAX] if isinstance(value, str) else ""


def _free_name(wanted: str) -> str:
    """Return a user name that nobody has: the wanted one in our letters, or with a number."""
    local = wanted.partition("@")[0].lower()
    plain = re.sub(r"[^a-z0-9]+", "-", local).strip("-")[: _USERNAME_MAX - 6].strip("-") or "user"
    taken = set(User.objects.filter(username__startswith=plain).values_list("username", flat=True))
    return next(name for name in (plain, *(f"{plain}-{number}" for number in range(2, 100_000))) if name not in taken)


def apply(user: User, provider: IdentityProvider, outcomes: Collection[Outcome]) -> None:
    """Make the groups and roles that `provider` gave to `user` those of `outcomes`. What people gave stays."""
    given = [outcome.rule for outcome in outcomes if outcome.applies]
    _apply_groups(user, provider, {rule.group_id for rule in given if rule.group_id is not None})
    _apply_roles(user, provider, given)


def _apply_groups(user: User, provider: IdentityProvider, wanted: set[int]) -> None:
    own = GroupMember.objects.filter(user=user, provider=provider.slug).select_related("group__team", "user", "member")
    actor = system_user()
    for member in own.exclude(group__in=wanted).order_by("pk"):
        remove_member(member, actor=actor)
    present = GroupMember.objects.filter(user=user).values("group")
    for group in Group.objects.filter(pk__in=wanted).exclude(pk__in=present).select_related("team").order_by("pk"):
        add_person(group, user, actor=actor, provider=provider.slug)


def _apply_roles(user: User, provider: IdentityProvider, given: Sequence[ClaimRule]) -> None:
    wanted: dict[Scope, ClaimRule] = {
        (rule.role_id, rule.team_id, rule.repository_pattern, rule.environment_id): rule
        for rule in given
        if rule.role_id is not None and rule.team_id is not None
    }
    rows = RoleGrant.objects.filter(user=user).select_related("team", "role", "user", "environment", "group")
    actor = system_user()
    present: set[Scope] = set()
    for grant in rows.order_by("pk"):
        scope = (grant.role_id, grant.team_id, grant.repository_pattern, grant.environment_id)
        if grant.provider == provider.slug and scope not in wanted:
            end_grant(grant, actor=actor)
        else:
            present.add(scope)
    for scope, rule in wanted.items():
        if scope in present or rule.team is None or rule.role is None:
            continue
        write_grant(
            rule.team, user, rule.role, actor=actor, provider=provider.slug,
            repository_pattern=rule.repository_pattern, environment=rule.environment,
        )  # fmt: skip
