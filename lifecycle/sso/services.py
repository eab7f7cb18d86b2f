"""Providers of sign-in, their rules, identities, and the policy of passwords: what admins and persons change."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.models import Group, GroupMember, Identity, Role, Team, User
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_groups import (
    ClaimRuleDetails,
    IdentityDetails,
    ProviderDetails,
    SignInPolicyDetails,
    SignInRefused,
)
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.proofs import why_not_confirmed
from lifecycle.authority.second_factors import has_factor
from lifecycle.authority.services.sessions import drop_sessions
from lifecycle.authority.services.teams import why_not_for_people
from lifecycle.core import clock, sealing
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, StaleVersion
from lifecycle.core.http import HttpClient, origin, parse_outbound_url
from lifecycle.core.reasons import refuse_if
from lifecycle.environments.models import Environment
from lifecycle.oidc.discovery import discover
from lifecycle.oidc.types import Person, Provider
from lifecycle.sso.claims import Outcome, outcomes_of
from lifecycle.sso.models import ClaimRule, IdentityProvider, SignInPolicy
from lifecycle.sso.provisioning import apply, link, lock_for
from lifecycle.sso.queries import provider_for, providers_for, rules_of

SECRET_MAX: Final = 2000  # characters
RULES_MAX: Final = 500  # of one provider; each sign-in reads all of them
_KNOWN_S: Final = 60
_known: dict[str, tuple[float, Provider | None]] = {}  # of this process: issuer -> when it was read, and what
_STALE: Final = "Another user changed this provider. Load it again, then repeat your change."


@lru_cache(maxsize=1)
def _client(allowed: frozenset[str], _process_id: int) -> HttpClient:
    return HttpClient(also=allowed)


def http() -> HttpClient:
    """Return the client for calls to providers. It may call the internal hosts of SIGN_IN_ALLOW."""
    return _client(_allowed(), os.getpid())


def _allowed() -> frozenset[str]:
    return frozenset(entry.lower() for entry in settings.SIGN_IN_ALLOW)


def checked_issuer(text: str) -> str:
    """Return an issuer as it is given; raises Malformed. http is only for hosts of SIGN_IN_ALLOW."""
    url = parse_outbound_url(text)  # raises ForbiddenDestination, which is Malformed
    _, host, port = origin(url)
    if url.query:
        raise Malformed("An issuer has no query.")
    if url.scheme != "https" and not {host, f"{host}:{port}"} & _allowed():
        raise Malformed("The issuer must start with https://. For a test, name its host in SIGN_IN_ALLOW.")
    return text


def discovered(provider: IdentityProvider) -> Provider:
    """Return the addresses of a provider, at most a minute old: visitors cannot make us call it again and again.

    Raises ProviderUnavailable, ForbiddenDestination.
    """
    now = time.monotonic()
    read_at, known = _known.get(provider.issuer, (0.0, None))
    if known is None or now - read_at > _KNOWN_S:
        known = discover(provider.issuer, http())
        _known[provider.issuer] = now, known
    return known


def test_provider(slug: str, *, actor: User) -> Provider:
    """Read the discovery document of a provider now; raises NotPermitted, NotFound, ProviderUnavailable."""
    return discover(provider_for(actor, slug).issuer, http())


@transaction.atomic
def create_provider(
    *, actor: User, slug: str, name: str, issuer: str, client_id: str, client_secret: str, **others: Any
) -> IdentityProvider:
    """Add a provider. It makes no call: see `test_provider`. Raises NotPermitted, Malformed, Conflict.

    `others`: scopes, username_claim, is_enabled, creates_accounts, links_by_mail.
    """
    providers_for(actor)
    provider = IdentityProvider(
        slug=slug, name=name, issuer=checked_issuer(issuer), client_id=client_id, created_by=actor, **others
    )
    _check(provider, client_secret)
    try:
        with transaction.atomic():
            provider.save(force_insert=True)
    except IntegrityError:
        raise Conflict("A provider has this short name or this issuer already.") from None
    _seal(provider, client_secret)
    _record(Action.SIGN_IN_PROVIDER_CREATED, provider, actor, is_secret_changed=True)
    return provider


@transaction.atomic
def change_provider(
    slug: str, *, actor: User, revision: int | None = None, client_secret: str = "", **changes: Any
) -> IdentityProvider:
    """Change a provider; "" keeps the secret. The issuer never changes: its identities would be of other people.

    Raises NotPermitted, NotFound, Malformed, StaleVersion.
    """
    providers_for(actor)
    provider = IdentityProvider.objects.select_for_update().filter(slug=slug).first() or provider_for(actor, slug)
    if revision is not None and revision != provider.revision:
        raise StaleVersion(_STALE)
    if "client_id" in changes and changes["client_id"] != provider.client_id and not client_secret:
        raise Malformed("Enter the secret of the other client too.")
    for field, value in changes.items():
        setattr(provider, field, value)
    _check(provider, client_secret or "kept")
    provider.revision += 1
    provider.save(update_fields=[*changes, "revision"])
    if client_secret:
        _seal(provider, client_secret)
    _record(Action.SIGN_IN_PROVIDER_CHANGED, provider, actor, is_secret_changed=bool(client_secret))
    return provider


@transaction.atomic
def delete_provider(slug: str, *, actor: User) -> None:
    """Remove a provider with its rules and everything that its claims had given. Identities are unlinked.

    Raises NotPermitted, NotFound.
    """
    provider = provider_for(actor, slug)
    lock_for(provider)
    for user in User.objects.filter(pk__in=_people_with_rights_of(provider)).order_by("pk"):
        apply(user, provider, [])
    for identity in Identity.objects.select_for_update().filter(issuer=provider.issuer, ended_at=None).order_by("pk"):
        _end(identity, provider, actor)
    _record(Action.SIGN_IN_PROVIDER_DELETED, provider, actor, is_secret_changed=False)
    provider.delete()


def _people_with_rights_of(provider: IdentityProvider) -> set[int]:
    members = GroupMember.objects.filter(provider=provider.slug, user__isnull=False).values_list("user", flat=True)
    holders = RoleGrant.objects.filter(provider=provider.slug, user__isnull=False).values_list("user", flat=True)
    return {pk for pk in (*members, *holders) if pk is not None}


def _check(provider: IdentityProvider, client_secret: str) -> None:
    provider.name = " ".join(provider.name.split())
    provider.scopes = " ".join(provider.scopes.split())
    try:
        provider.clean_fields(exclude=("client_secret_encrypted", "created_by"))
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise Malformed(f"{field}: {messages[0]}", field=field) from None
    if "openid" not in provider.scopes.split():
        raise Malformed("The scopes must contain openid.", field="scopes")
    if not client_secret or len(client_secret) > SECRET_MAX or not client_secret.isprintable():
        raise Malformed(f"Enter a client secret of up to {SECRET_MAX} characters.", field="client_secret")


def _seal(provider: IdentityProvider, client_secret: str) -> None:
    provider.client_secret_encrypted = sealing.seal(client_secret, provider, "client_secret_encrypted")
    provider.save(update_fields=["client_secret_encrypted"])


def _record(action: Action, provider: IdentityProvider, actor: User, *, is_secret_changed: bool) -> None:
    details = ProviderDetails(
        provider=provider.slug,
        issuer=provider.issuer,
        client=provider.client_id,
        is_secret_changed=is_secret_changed,
        is_enabled=provider.is_enabled,
        creates_accounts=provider.creates_accounts,
        links_by_mail=provider.links_by_mail,
    )
    audit.record(action, actor=actor, subject=provider, details=details)


@dataclass(frozen=True, slots=True)
class NewRule:
    """A rule as somebody writes it: a group by its name, or a role with its scope."""

    claim: str
    value: str
    match: str = ClaimRule.Match.EXACT
    group: str = ""
    role: str = ""
    team: str = ""
    repository_pattern: str = "*"
    environment: str = ""


def rule_of(provider: IdentityProvider, new: NewRule) -> ClaimRule:
    """Return the unsaved rule that `new` describes; raises Malformed, NotFound."""
    rule = ClaimRule(provider=provider, claim=new.claim.strip(), match=new.match, value=new.value)
    if bool(new.group) == bool(new.role):
        raise Malformed("Choose either a group or a role with a team.")
    if new.group:
        owner, _, slug = new.group.rpartition("/")
        rows = Group.objects.select_related("team").filter(slug=slug)
        group = rows.filter(team__slug=owner).first() if owner else rows.filter(team=None).first()
        if group is None:
            raise NotFound(f"No group {new.group[:121]} found. Use devs, or shop/devs for a group of team shop.")
        if group.source != Group.Source.SSO:
            raise Conflict(f"People add the members of group {group}. Create a group whose members come from sign-in.")
        rule.group = group
    else:
        rule.role = Role.objects.filter(slug=new.role).first()
        rule.team = Team.objects.filter(slug=new.team).first()
        if rule.role is None or rule.team is None:
            raise NotFound(f"There is no role {new.role[:60]} or no team {new.team[:60]}. Check their names.")
        refuse_if(why_not_for_people(rule.role))
        rule.repository_pattern = new.repository_pattern
        if new.environment:
            rule.environment = Environment.objects.filter(team=rule.team, slug=new.environment).first()
            if rule.environment is None:
                raise NotFound(f"Team {rule.team} has no environment {new.environment[:60]}. Check its name.")
    try:
        rule.clean_fields(exclude=("provider", "group", "role", "team", "environment", "created_by"))
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise Malformed(f"{field}: {messages[0]}", field=field) from None
    if rule.match == ClaimRule.Match.GLOB and not rule.value.replace("*", ""):
        raise Malformed("A value of only stars gives it to everybody. Name a part of the value.", field="value")
    return rule


@transaction.atomic
def create_rule(slug: str, new: NewRule, *, actor: User) -> ClaimRule:
    """Add a rule for the next sign-in of each person. Raises NotPermitted, NotFound, Malformed, Conflict."""
    provider = provider_for(actor, slug)
    rule = rule_of(provider, new)
    if provider.rules.count() >= RULES_MAX:
        raise Conflict(f"A provider can have {RULES_MAX} rules. Use a pattern with a star, or remove some.")
    rule.created_by = actor
    try:
        with transaction.atomic():
            rule.save(force_insert=True)
    except IntegrityError:
        raise Conflict("This rule exists already.") from None
    details = ClaimRuleDetails(provider=slug, rule=str(rule))
    audit.record(Action.SIGN_IN_RULE_CREATED, actor=actor, subject=provider, team=rule.team, details=details)
    return rule


def rule_for(slug: str, rule_id: int, *, actor: User) -> ClaimRule:
    """Return one rule of a provider; raises NotPermitted, NotFound."""
    rule = rules_of(provider_for(actor, slug)).filter(pk=rule_id).first()
    if rule is None:
        raise NotFound("Rule not found.")
    return rule


@transaction.atomic
def delete_rule(slug: str, rule_id: int, *, actor: User) -> None:
    """Remove a rule. What it gave to people, and no other rule gives them, ends at once.

    The values of each person's last sign-in decide. Raises NotPermitted, NotFound.
    """
    provider = provider_for(actor, slug)
    rule = rule_for(slug, rule_id, actor=actor)
    lock_for(provider)
    details = ClaimRuleDetails(provider=slug, rule=str(rule))
    audit.record(Action.SIGN_IN_RULE_DELETED, actor=actor, subject=provider, team=rule.team, details=details)
    rule.delete()
    rest = list(rules_of(provider))
    with_rights = _people_with_rights_of(provider)
    for identity in _identities(provider).filter(user__in=with_rights):
        known = [other for other in rest if other.claim in identity.claims]
        apply(identity.user, provider, outcomes_of(known, identity.claims))


def _identities(provider: IdentityProvider) -> Any:
    rows = Identity.objects.filter(issuer=provider.issuer, ended_at=None, user__is_active=True)
    return rows.select_related("user").order_by("user__username", "pk")


def preview(slug: str, claims: Mapping[str, Any], *, actor: User) -> list[Outcome]:
    """Return what each rule of a provider does with sample claims. Changes nothing. Raises NotPermitted, NotFound."""
    return outcomes_of(rules_of(provider_for(actor, slug)), claims)


@dataclass(frozen=True, slots=True)
class Effect:
    """What saving or removing a rule changes for one person: sentences of what they gain and lose."""

    username: str
    gains: tuple[str, ...]
    loses: tuple[str, ...]


def effects_of(slug: str, *, actor: User, add: NewRule | None = None, remove: int | None = None) -> list[Effect]:
    """Return who would gain and lose what by a change of rules, by user name. Changes nothing.

    The values of each person's last sign-in decide; a person who never sent the claim is not listed.
    Raises NotPermitted, NotFound, Malformed.
    """
    provider = provider_for(actor, slug)
    before = list(rules_of(provider))
    after = [rule for rule in before if rule.pk != remove]
    if add is not None:
        after.append(rule_of(provider, add))
    effects = []
    for identity in _identities(provider):
        now = _targets(before, identity.claims)
        then = _targets(after, identity.claims)
        if now != then:
            effects.append(Effect(identity.user.username, tuple(sorted(then - now)), tuple(sorted(now - then))))
    return effects


def _targets(rules: list[ClaimRule], claims: Mapping[str, Any]) -> set[str]:
    known = [rule for rule in rules if rule.claim in claims]
    return {outcome.rule.target for outcome in outcomes_of(known, claims) if outcome.applies}


@transaction.atomic
def set_policy(*, actor: User, passwords_only_for_admins: bool) -> SignInPolicy:
    """Decide whether only admins can sign in with a password. Sessions that exist go on.

    Raises NotPermitted, or Conflict without an enabled provider: nobody else could sign in any more.
    """
    if passwords_only_for_admins and not providers_for(actor).filter(is_enabled=True).exists():
        raise Conflict("Add and enable a provider first. Otherwise only admins could sign in.")
    providers_for(actor)
    policy = SignInPolicy.objects.select_for_update().first() or SignInPolicy()
    if policy.pk is None or policy.passwords_only_for_admins != passwords_only_for_admins:
        policy.passwords_only_for_admins = passwords_only_for_admins
        policy.save()
        details = SignInPolicyDetails(passwords_only_for_admins=passwords_only_for_admins)
        audit.record(Action.SIGN_IN_POLICY_CHANGED, actor=actor, subject=policy, details=details)
    return policy


@transaction.atomic
def link_own(person: Person, provider: IdentityProvider, *, actor: User, key: str | None = None) -> Identity:
    """Link an identity that the provider proved a moment ago to the actor's own account.

    It is one more way to sign in: who has a second factor must have used it just now, and the other sessions of the
    account end, all but the one with the key `key`. The groups and roles of its claims come with the next sign-in.
    Raises NotPermitted, ConfirmationRequired, Conflict.
    """
    if not actor.is_person or not actor.is_active:
        raise NotPermitted("Only people can link an identity.")
    if has_factor(actor):
        refuse_if(why_not_confirmed(has_factor=True))
    lock_for(provider)
    made = link(actor, person, provider, actor=actor)
    drop_sessions(actor, except_key=key)
    return made


@transaction.atomic
def unlink(identity_id: int, *, actor: User) -> None:
    """Unlink an identity: the actor's own, or anybody's for an admin. What its claims had given ends.

    Raises NotFound, or Conflict when the account could not sign in any more.
    """
    rows = Identity.objects.select_for_update(of=("self",)).select_related("user").filter(pk=identity_id, ended_at=None)
    identity = rows.first()
    if identity is None or (identity.user_id != actor.pk and not actor.is_superuser):
        raise NotFound("Identity not found.")
    user = identity.user
    others = Identity.objects.filter(user=user, ended_at=None).exclude(pk=identity.pk)
    if identity.user_id == actor.pk and not user.has_usable_password() and not others.exists():
        raise Conflict("This is your only way to sign in. Ask an admin for a password first.")
    provider = IdentityProvider.objects.filter(issuer=identity.issuer).first()
    if provider is not None:
        lock_for(provider)
        apply(user, provider, [])
    _end(identity, provider, actor)


def _end(identity: Identity, provider: IdentityProvider | None, actor: User) -> None:
    identity.ended_at = clock.now()
    identity.save(update_fields=["ended_at"])
    details = IdentityDetails(
        user=identity.user.username, provider=provider.slug if provider else identity.issuer, subject=identity.subject
    )
    audit.record(Action.IDENTITY_UNLINKED, actor=actor, subject=identity.user, details=details)
    events.publish(events.RightsChanged((identity.user_id,)))


@transaction.atomic
def note_refusal(provider: IdentityProvider, why: str, *, user: User | None = None) -> None:
    """Record that a sign-in was refused, with the reason, which the browser gets only in part."""
    details = SignInRefused(provider=provider.slug, user=user.username if user else "", why=why[:300])
    audit.record(
        Action.SIGN_IN_REFUSED, actor=None, subject=user, outcome=AuditEvent.Outcome.DENIED, details=details
    )  # fmt: skip
