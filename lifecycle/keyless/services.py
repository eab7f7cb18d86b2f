"""Make, try and end trust rules, and exchange identity tokens. Network calls stand before the transactions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from accounts import tokens
from accounts.models import ApiToken, Robot, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_keyless import TokenExchanged, TrustRuleDetails
from lifecycle.authority.grants import live_grants
from lifecycle.authority.rights import lacking_for, may, require, why_suspended
from lifecycle.authority.services.teams import lock_team, require_verbs
from lifecycle.authority.services.tokens import end_token
from lifecycle.core import context
from lifecycle.core.errors import Conflict, LifecycleError, Malformed, NotFound, NotPermitted
from lifecycle.core.http import parse_outbound_url
from lifecycle.keyless.access import rules_of
from lifecycle.keyless.constants import RULES_MAX, TOKEN_LIFE_S
from lifecycle.keyless.issuers import ISSUERS
from lifecycle.keyless.matching import checks_of, why_not_claims
from lifecycle.keyless.models import Exchange, TrustRule
from lifecycle.keyless.types import Identity, RefusedIdentity, Trial
from lifecycle.keyless.verifying import issuer_of, verify

_TEXT_MAX: Final = 300
_JOINS: Final = ("robot__user", "robot__team", "made_by", "made_with__user", "made_with__made_by")
_NO_RULE: Final = "No trust rule accepts this identity token."


@transaction.atomic
def create_rule(
    robot_id: int, *, actor: User, name: str, issuer: str, claims: Mapping[str, str], audience: str = ""
) -> TrustRule:
    """Create a rule by which jobs become a robot. Without an audience, it is the address of this installation.

    A rule that is made with a token ends with it, as a token made with a token does. A robot makes none: a token of
    minutes could make itself last for ever. Raises NotFound, NotPermitted (robot.manage, and every verb of the robot
    unless admin), Malformed, Conflict.
    """
    robot = Robot.objects.select_related("user").filter(pk=robot_id).first()
    if robot is None:
        raise NotFound("Robot not found, or you don't have access.")
    team = lock_team(actor, robot.team_id)
    require(actor, Verb.ROBOT_MANAGE, team=team)
    if actor.kind == User.Kind.ROBOT:
        raise NotPermitted("Only people can make trust rules. A robot cannot.")
    robot.user.refresh_from_db(fields=["is_active"])
    if not robot.user.is_active:
        raise Conflict(f"Robot {robot} is deactivated. Create a new robot.")
    grants = live_grants(robot.user).select_related("role")
    require_verbs(
        actor, team, sorted({verb for grant in grants for verb in grant.role.verbs}), until=None, by=Verb.ROBOT_MANAGE
    )
    name, issuer, audience = name.strip(), issuer.strip(), audience.strip() or settings.PUBLIC_URL
    if not name or len(name) > 120 or not name.isprintable():
        raise Malformed("Enter a name of up to 120 characters.", field="name")
    _check_issuer(issuer)
    if len(audience) > _TEXT_MAX or not audience.isprintable() or "*" in audience:
        raise Malformed("Enter an audience of up to 300 characters, without a star.", field="audience")
    if why := why_not_claims(claims):
        raise Malformed(why, field="claims")
    if TrustRule.objects.filter(robot__team=team, ended_at=None).count() >= RULES_MAX:
        raise Conflict(f"Team {team} has {RULES_MAX} rules. End one that is not used.")
    lookup = context.current().token_lookup
    rule = TrustRule.objects.create(
        robot=robot, name=name, issuer=issuer, audience=audience, claims=dict(claims), made_by=actor,
        made_with=ApiToken.objects.get(lookup=lookup) if lookup else None,
    )  # fmt: skip
    audit.record(Action.TRUST_RULE_CREATED, actor=actor, subject=rule, team=team, details=_details(rule))
    return rule


@transaction.atomic
def end_rule(robot_id: int, rule_id: int, *, actor: User) -> None:
    """End a rule, and revoke the tokens that it gave. Raises NotFound, NotPermitted."""
    robot = Robot.objects.filter(pk=robot_id).first()
    if robot is None:
        raise NotFound("Rule not found, or you don't have access.")
    team = lock_team(actor, robot.team_id)
    require(actor, Verb.ROBOT_MANAGE, team=team)
    rule = rules_of(robot).select_for_update(of=("self",)).filter(pk=rule_id).first()
    if rule is None:
        raise NotFound("Rule not found, or you don't have access.")
    TrustRule.objects.filter(pk=rule.pk).update(ended_at=Now())
    given = ApiToken.objects.select_for_update(of=("self",)).select_related("user").filter(
        pk__in=rule.exchanges.values("token"), revoked_at=None, expires_at__gt=Now()
    )  # fmt: skip
    for token in given.order_by("pk"):
        end_token(token, actor=actor, team=team)
    audit.record(Action.TRUST_RULE_ENDED, actor=actor, subject=rule, team=team, details=_details(rule))


def try_rule(rule: TrustRule, text: str) -> Trial:
    """Return what came of an identity token against one rule, without using it up. The caller has checked the right.

    An expired token is refused, as at the exchange. Calls the network.
    """
    try:
        issuer = issuer_of(text.strip())
        if issuer != rule.issuer:
            return Trial(False, f"The token comes from {issuer[:_TEXT_MAX]}, the rule trusts {rule.issuer}.", ())
        identity = verify(text.strip(), rule.issuer, ISSUERS)
    except LifecycleError as error:
        return Trial(False, str(error), ())
    checks = checks_of(rule.claims, identity.claims)
    reason = ""
    if rule.audience not in identity.audiences:
        reason = f"The token is for {', '.join(identity.audiences)[:_TEXT_MAX]}, the rule wants {rule.audience}."
    elif wrong := [check for check in checks if not check.holds]:
        reason = f"{wrong[0].claim} is {wrong[0].found or 'absent'}, the rule wants {wrong[0].pattern}."
    else:
        reason = _why_stopped(rule)
    return Trial(not reason, reason, checks)


def exchange(text: str, *, robot: str = "") -> tuple[ApiToken, str, TrustRule]:
    """Exchange an identity token for a token of 15 minutes: (row, text, the rule that accepted it).

    `robot` is the user name of the robot, needed only where rules of several robots accept the token. Each identity
    token is accepted once. Raises RefusedIdentity, IssuerUnavailable, or Malformed when the robot must be named.
    """
    issuer = issuer_of(text)
    # Nobody but a rule chooses whom we call.
    if not TrustRule.objects.filter(issuer=issuer, ended_at=None).exists():
        raise RefusedIdentity(_NO_RULE)
    identity = verify(text, issuer, ISSUERS)
    rule = _rule_for(identity, robot)
    return _issue(rule.pk, identity)


def _rule_for(identity: Identity, robot: str) -> TrustRule:
    rules = TrustRule.objects.filter(issuer=identity.issuer, audience__in=identity.audiences, ended_at=None)
    if robot:
        rules = rules.filter(robot__user__username=robot)
    found = [
        rule for rule in rules.select_related(*_JOINS).order_by("pk")
        if all(check.holds for check in checks_of(rule.claims, identity.claims))
    ]  # fmt: skip
    if not found:
        raise RefusedIdentity(_NO_RULE)
    names = sorted({rule.robot.user.username for rule in found})
    if len(names) > 1:
        raise Malformed(f"Rules of several robots accept this token: {', '.join(names)}. Name one as robot.")
    working = [rule for rule in found if not _why_stopped(rule)]
    if not working:
        raise RefusedIdentity(_why_stopped(found[0]))
    return working[0]


@transaction.atomic
def _issue(rule_id: int, identity: Identity) -> tuple[ApiToken, str, TrustRule]:
    rule = TrustRule.objects.select_for_update(of=("self",)).filter(pk=rule_id, ended_at=None).first()
    if rule is None:
        raise RefusedIdentity(_NO_RULE)
    if why := _why_stopped(rule):
        raise RefusedIdentity(why)
    try:
        with transaction.atomic():
            seen = Exchange.objects.create(
                rule=rule, identity_sha256=identity.sha256, subject=identity.subject[:300], forget_at=identity.ends_at
            )
    except IntegrityError:
        raise RefusedIdentity("This identity token was used already. Request a new one in the job.") from None
    row, text = tokens.create_token(
        rule.robot.user,
        kind=ApiToken.Kind.ROBOT,
        name=f"keyless: {identity.subject}"[:120],
        days=TOKEN_LIFE_S / 86_400,
        service=tokens.KEYLESS,
        made_by=rule.made_by,
        parent=rule.made_with,
    )
    seen.token = row
    seen.save(update_fields=["token"])
    TrustRule.objects.filter(pk=rule.pk).update(used_at=Now())
    details = TokenExchanged(
        user=rule.robot.user.username, lookup=row.lookup, rule=rule.name, issuer=rule.issuer,
        subject=identity.subject[:300],
    )  # fmt: skip
    audit.record(Action.TOKEN_EXCHANGED, actor=rule.robot.user, subject=row, team=rule.robot.team, details=details)
    return row, text, rule


def _why_stopped(rule: TrustRule) -> str:
    """Return why a rule gives no tokens now, as one sentence; "" if it does.

    Who made it must still be able to create a token of the robot: the rule never has more than that user.
    """
    robot, maker = rule.robot, rule.made_by
    if not robot.user.is_active:
        return f"Robot {robot} is deactivated."
    if why := why_suspended(robot.user):
        return why
    if rule.made_with is not None and tokens.why_unusable(rule.made_with):
        return f"{maker} made the rule with a token that is revoked or has expired. Make it again in the browser."
    lost = ""
    if not maker.is_active:
        lost = "is deactivated"
    elif maker.is_superuser or maker.kind == User.Kind.SYSTEM:
        return ""
    elif not may(maker, Verb.ROBOT_MANAGE, team=robot.team):
        lost = f"can no longer manage robots of team {robot.team}"
    elif beyond := lacking_for(maker, live_grants(robot.user).select_related("role")):
        lost = f"does not have: {', '.join(beyond)}"
    return f"{maker}, who made the rule, {lost}. Make it again." if lost else ""


def forget_old() -> int:
    """Delete exchanges whose identity tokens have expired, with the tokens that they gave; returns their number."""
    old = Exchange.objects.filter(forget_at__lt=Now() - timedelta(hours=1))
    ApiToken.objects.filter(
        pk__in=old.values("token"), service=tokens.KEYLESS, expires_at__lt=Now() - timedelta(hours=1)
    ).delete()
    deleted, _ = old.delete()
    return deleted


def _check_issuer(issuer: str) -> None:
    if not issuer or len(issuer) > _TEXT_MAX:
        raise Malformed("Enter the issuer, for example https://token.actions.githubusercontent.com.", field="issuer")
    url = parse_outbound_url(issuer)
    if url.query or (url.scheme != "https" and url.host not in {"localhost", "127.0.0.1"}):
        raise Malformed("The issuer is an https address without parameters.", field="issuer")


def _details(rule: TrustRule) -> TrustRuleDetails:
    return TrustRuleDetails(
        user=rule.robot.user.username, rule=rule.name, issuer=rule.issuer, audience=rule.audience,
        claims=tuple(f"{name}={pattern}" for name, pattern in sorted(rule.claims.items())),
    )  # fmt: skip
