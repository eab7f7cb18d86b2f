"""Change and remove environments: settings and approval rules, with what depends on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Role, Team, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import EnvironmentChanged, EnvironmentRemoved
from lifecycle.authority.access import registry_for_target
from lifecycle.authority.queries import environments_visible_to, teams_visible_to
from lifecycle.authority.rights import may, require
from lifecycle.authority.services.environments import why_not_prefix
from lifecycle.authority.services.registries import blocks_address
from lifecycle.authority.services.security import security_now, why_no_fresh_factor
from lifecycle.clusters.models import NamespaceBinding
from lifecycle.core import clock, sealing
from lifecycle.core.errors import Conflict, Malformed, NotFound, PolicyBlocked, StaleVersion
from lifecycle.core.http import parse_outbound_url
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.environments.models import DAY_S, ApprovalRule, Environment, Slot
from lifecycle.promotion.approval_rules import why_not_satisfiable
from lifecycle.promotion.due import judge_soon
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import LIVE_STATES
from lifecycle.registry.models import Registry, Repository
from lifecycle.registry.services import MANAGED_NAME

EXCLUSIONS: Final = ("excludes_requester", "excludes_build_trigger", "excludes_committer", "excludes_policy_author")
SETTINGS: Final = (
    "name", "position", "prefix", "is_archived", "required_approvals", "is_production", "is_internet_facing",
    "approve_within_s",
    "execute_within_s", "soak_s", "queue_policy", "auto_execute", "verification", "verify_url", "verify_within_s",
    "rolls_back", "requires_signed_votes", *EXCLUSIONS,
)  # fmt: skip
_WHO_APPROVES: Final = frozenset({"required_approvals", "approval_rules", "requires_signed_votes", *EXCLUSIONS})
_ABOUT_APPROVALS: Final = _WHO_APPROVES | {"is_production"}  # which can need a fresh second factor
RULES_MAX: Final = 10
PEOPLE_MAX: Final = 50
SECRET_MIN: Final = 24  # characters
APPROVALS_MAX: Final = 20
_LIMITS_S: Final = {
    "approve_within_s": (60, 366 * DAY_S),
    "execute_within_s": (60, 366 * DAY_S),
    "soak_s": (0, 366 * DAY_S),
    "verify_within_s": (60, 30 * DAY_S),
}


@dataclass(frozen=True, slots=True)
class RuleWish:
    """An approval rule to write: of one role (slug), one team (slug), or named people (user names)."""

    name: str
    required: int
    role: str = ""
    team: str = ""
    people: tuple[str, ...] = ()


@transaction.atomic
def change_environment(
    environment_id: int,
    *,
    actor: User,
    revision: int | None = None,
    approval_rules: Sequence[RuleWish] | None = None,
    verify_secret: str = "",
    registry: str | None = None,
    **settings: Any,
) -> Environment:
    """Change settings of an environment, and replace its approval rules when they are given.

    `prefix` changes only while nothing is below the present one. `is_archived` takes the environment off the path of
    its team: nothing is promoted to it, and it keeps what it holds. `registry` is the name of the registry to promote
    to ("" or "managed": the managed one), which only an admin can choose, and only before the first promotion, while no
    request is unfinished: its votes name the registry.
    With `revision`, the change is made only if nobody changed the environment since that revision. Unfinished requests
    are evaluated again at once. Where approvals into production need a fresh second factor, it is needed also to make
    it no production, or to ask for less there. Raises NotFound, NotPermitted, StepUpRequired, StaleVersion, Malformed,
    or PolicyBlocked when too few users could approve promotions then.
    """
    environment = lock_environment(actor, environment_id)
    require(actor, Verb.ENVIRONMENT_MANAGE, team=environment.team, environment=environment)
    if revision is not None and revision != environment.revision:
        raise StaleVersion("Another user changed this environment. Load it again, then repeat your change.")
    before = as_text(environment)
    _set(environment, settings)
    if approval_rules is not None:
        _write_rules(environment, approval_rules, actor)
    if verify_secret:
        _set_secret(environment, verify_secret)
    if registry is not None:
        _set_registry(environment, registry, actor)
    _check_verification(environment)
    after = as_text(environment)
    if verify_secret:
        before["verify_secret"], after["verify_secret"] = "another", "changed"
    changed = sorted(name for name in after if after[name] != before[name])
    if not changed:
        return environment
    if before["is_production"] == _text(True) and _asks_less(before, after) and security_now().step_up_is_on:
        refuse_if(why_no_fresh_factor(actor, "Lowering the protection of production"))
    is_about_approvals = not _ABOUT_APPROVALS.isdisjoint(changed)
    if not _WHO_APPROVES.isdisjoint(changed) and (why := why_not_satisfiable(environment)):
        raise PolicyBlocked("Nobody could promote to this environment any more.", reasons=[why])
    environment.revision += 1
    environment.unsatisfiable_since = None if is_about_approvals else environment.unsatisfiable_since
    environment.save(update_fields=["revision", "unsatisfiable_since"])
    details = EnvironmentChanged(
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
        is_about_approvals=is_about_approvals,
    )
    audit.record(
        Action.ENVIRONMENT_CHANGED, actor=actor, subject=environment, environment=environment, details=details
    )  # fmt: skip
    judge_soon(PromotionRequest.objects.filter(environment__team=environment.team_id, state__in=LIVE_STATES))
    return environment


def lock_environment(actor: User, environment_id: int) -> Environment:
    """Return the environment with its row locked; raises NotFound when it is absent or hidden from `actor`."""
    rows = environments_visible_to(actor).select_for_update(of=("self",))
    environment = rows.filter(pk=environment_id).first()
    if environment is None:
        raise NotFound("Environment not found, or you don't have access.")
    return environment


def why_not_manage(actor: User, environment: Environment) -> Reason | None:
    """Return why `actor` cannot change the environment."""
    decision = may(actor, Verb.ENVIRONMENT_MANAGE, team=environment.team, environment=environment)
    return None if decision else Reason(decision.reason)


def as_text(environment: Environment) -> dict[str, str]:
    """Return the settings and approval rules as the audit log stores them."""
    words = {name: _text(getattr(environment, name)) for name in SETTINGS}
    rules = environment.approval_rules.select_related("role", "team").prefetch_related("people")
    words["registry"] = environment.registry.name if environment.registry is not None else MANAGED_NAME
    return words | {"approval_rules": "; ".join(rule_words(rule) for rule in rules)}


def _asks_less(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Return whether a change of settings (as text) lets approvals into production through more easily."""
    switches = ("is_production", "requires_signed_votes", *EXCLUSIONS)
    return (
        any(before[name] == _text(True) != after[name] for name in switches)
        or int(after["required_approvals"]) < int(before["required_approvals"])
        or (before["approval_rules"] != "" and after["approval_rules"] != before["approval_rules"])
    )


def _text(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def rule_words(rule: ApprovalRule) -> str:
    """Return a rule in words: `security: 1 of role security`."""
    if rule.role is not None:
        group = f"role {rule.role.slug}"
    elif rule.team is not None:
        group = f"team {rule.team.slug}"
    else:
        group = ", ".join(sorted(person.username for person in rule.people.all())) or "nobody"
    return f"{rule.name}: {rule.required} of {group}"


def _set(environment: Environment, settings: dict[str, Any]) -> None:
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise Malformed(f"Unknown settings: {', '.join(unknown)}.")
    position = settings.pop("position", None)
    if (prefix := settings.pop("prefix", None)) is not None:
        _set_prefix(environment, prefix)
    if (is_archived := settings.pop("is_archived", None)) is not None:
        _set_archived(environment, is_archived)
    for name, value in settings.items():
        if name in _LIMITS_S and not _LIMITS_S[name][0] <= value <= _LIMITS_S[name][1]:
            raise Malformed(f"{name} must be {_LIMITS_S[name][0]:,} to {_LIMITS_S[name][1]:,} seconds.")
        setattr(environment, name, value.strip() or environment.slug if name == "name" else value)
    if not 0 <= environment.required_approvals <= APPROVALS_MAX:
        raise Malformed(f"required_approvals must be 0 to {APPROVALS_MAX}.")
    try:
        environment.clean_fields(exclude=["team"])
    except ValidationError as error:
        raise Malformed("; ".join(error.messages)) from None
    if environment.verification == Environment.Verification.HTTP and not environment.verify_url:
        raise Malformed("A service that verifies promotions needs an address.")
    environment.save(update_fields=list(settings) or ["name"])
    if position is not None and position != environment.position:
        _move_to(environment, position)


def _set_prefix(environment: Environment, prefix: str) -> None:
    """Let promotions go below another prefix, while nothing is below the present one."""
    if prefix == environment.prefix:
        return
    refuse_if(_why_not_elsewhere(PromotionRequest.objects.filter(environment=environment)))
    if Repository.objects.filter(environment=environment).exists():
        raise Conflict(f"Images were promoted below {environment.prefix}/. Add another environment for another prefix.")
    refuse_if(why_not_prefix(environment.team, prefix, of=environment))
    environment.prefix = prefix
    try:
        environment.clean_fields(exclude=["team"])
    except ValidationError as error:
        raise Malformed("; ".join(error.messages)) from None
    environment.save(update_fields=["prefix"])


def _set_archived(environment: Environment, is_archived: bool) -> None:
    if is_archived == environment.is_archived:
        return
    live = PromotionRequest.objects.filter(environment=environment, state__in=PromotionRequest.NEXT).order_by("pk")
    if is_archived and (first := live.first()) is not None:
        raise Conflict(f"{first} is not finished. Finish or withdraw it first.")
    environment.archived_at = clock.now() if is_archived else None
    environment.save(update_fields=["archived_at"])


def _set_registry(environment: Environment, name: str, actor: User) -> None:
    """Let promotions go to another registry. Its credentials are those of the site, so only an admin decides."""
    present = environment.registry.name if environment.registry is not None else MANAGED_NAME
    if (name or MANAGED_NAME) == present:
        return
    chosen = registry_for_target(actor, name)
    refuse_if(_why_not_elsewhere(PromotionRequest.objects.filter(environment=environment)))
    if Repository.objects.filter(environment=environment).exists():
        raise Conflict("Images were promoted to this environment. Use another environment for another registry.")
    environment.registry = chosen
    environment.save(update_fields=["registry"])


@blocks_address.answered_by
def why_address_is_needed(registry: Registry) -> Reason | None:
    """Return the unfinished request to the registry that was judged for its present address, as a reason."""
    return _why_not_elsewhere(PromotionRequest.objects.filter(environment__registry=registry))


def _why_not_elsewhere(requests: QuerySet[PromotionRequest]) -> Reason | None:
    """Return why `requests` cannot go to another place: the votes of an unfinished one were for the present place."""
    live = requests.filter(state__in=PromotionRequest.NEXT).order_by("pk").first()
    if live is None:
        return None
    return Reason(f"{live} is not finished, and its votes are for the present registry. Withdraw it first.", Conflict)


def _set_secret(environment: Environment, secret: str) -> None:
    if not SECRET_MIN <= len(secret) <= 200 or "\0" in secret:
        raise Malformed(f"The shared secret has {SECRET_MIN} to 200 characters.")
    environment.verify_secret_sealed = sealing.seal(secret, environment, "verify_secret_sealed")
    environment.save(update_fields=["verify_secret_sealed"])


def _check_verification(environment: Environment) -> None:
    """Raise Malformed unless a service that verifies promotions has an address and a secret."""
    if environment.verify_url:
        parse_outbound_url(environment.verify_url)
    if environment.verification == Environment.Verification.HTTP and not environment.verify_secret_sealed:
        raise Malformed("A service that verifies promotions needs a shared secret. Its reply is signed with it.")


def _move_to(environment: Environment, position: int) -> None:
    """Put the environment at `position` (0 is first) on the path of its team; the others keep their order."""
    Team.objects.select_for_update().get(pk=environment.team_id)
    path = list(Environment.objects.filter(team=environment.team_id).exclude(pk=environment.pk).order_by("position"))
    if not 0 <= position <= len(path):
        raise Malformed(f"The position must be 0 to {len(path)}.")
    path.insert(position, environment)
    lowest = min(row.position for row in path)
    for start in (min(lowest, 0) - len(path), 0):  # two steps: no two rows may ever have the same position
        for number, row in enumerate(path):
            Environment.objects.filter(pk=row.pk).update(position=start + number)
    environment.position = position


def _write_rules(environment: Environment, wishes: Sequence[RuleWish], actor: User) -> None:
    if len(wishes) > RULES_MAX:
        raise Malformed(f"An environment has at most {RULES_MAX} approval rules.")
    if len({wish.name.strip() for wish in wishes}) < len(wishes):
        raise Malformed("Each approval rule needs its own name.")
    environment.approval_rules.all().delete()
    for wish in wishes:
        _write_rule(environment, wish, actor)


def _write_rule(environment: Environment, wish: RuleWish, actor: User) -> None:
    name = wish.name.strip()
    if not 1 <= len(name) <= 80 or "\0" in name:
        raise Malformed("The name of an approval rule has 1 to 80 characters.")
    if not 1 <= wish.required <= APPROVALS_MAX:
        raise Malformed(f"The rule {name} must require 1 to {APPROVALS_MAX} approvals.")
    if sum(map(bool, (wish.role, wish.team, wish.people))) != 1:
        raise Malformed(f"Give the rule {name} a role, a team, or people: exactly one of them.")
    role = Role.objects.filter(slug=wish.role).first() if wish.role else None
    team = teams_visible_to(actor).filter(slug=wish.team).first() if wish.team else None
    if wish.role and role is None:
        raise Malformed(f"There is no role {wish.role[:60]}.")
    if wish.team and team is None:
        raise Malformed(f"There is no team {wish.team[:60]} that you can see.")
    people = list(User.objects.filter(username__in=wish.people[:PEOPLE_MAX], kind=User.Kind.PERSON, is_active=True))
    if len(people) < len(set(wish.people)):
        missing = sorted(set(wish.people) - {person.username for person in people})
        raise Malformed(f"Not an active user: {', '.join(missing)[:200]}.")
    rule = ApprovalRule.objects.create(environment=environment, name=name, required=wish.required, role=role, team=team)
    rule.people.set(people)


def contents_of(environment: Environment) -> list[str]:
    """Return what stands on an environment and keeps it from being removed, as phrases."""
    slots = Slot.objects.filter(environment=environment, image__isnull=False).select_related("repository")
    requests = PromotionRequest.objects.filter(environment=environment)
    targets = Repository.objects.filter(environment=environment)
    names = sorted(slot.repository.name for slot in slots)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    live = requests.filter(state__in=PromotionRequest.NEXT).count()
    phrases = [
        (len(names), f"the deployed images of {shown}"),
        (live, f"{live} unfinished request{'' if live == 1 else 's'}"),
        (requests.count() - live, "the history of its requests"),
        (targets.count(), "its target repositories"),
        (NamespaceBinding.objects.filter(environment=environment).count(), "namespaces of clusters bound to it"),
    ]
    return [phrase for count, phrase in phrases if count]


def why_not_remove(actor: User, environment: Environment) -> Reason | None:
    """Return why `actor` cannot remove the environment now."""
    if (reason := why_not_manage(actor, environment)) is not None:
        return reason
    if contents := contents_of(environment):
        return Reason(
            f"{environment.slug} still has {', '.join(contents)}. Only an unused one can be removed.", Conflict
        )
    return None


@transaction.atomic
def remove_environment(environment_id: int, *, actor: User, revision: int | None = None) -> None:
    """Remove an environment that was never used, with its rules and the grants for it alone.

    Raises NotFound, NotPermitted, StaleVersion, or Conflict with what still stands on it.
    """
    environment = lock_environment(actor, environment_id)
    refuse_if(why_not_remove(actor, environment))
    if revision is not None and revision != environment.revision:
        raise StaleVersion("Another user changed this environment. Load it again, then repeat your change.")
    audit.record(
        Action.ENVIRONMENT_REMOVED, actor=actor, subject=environment, environment=environment,
        details=EnvironmentRemoved(slug=environment.slug, prefix=environment.prefix),
    )  # fmt: skip
    Slot.objects.filter(environment=environment).delete()
    environment.delete()


def recheck_approvers() -> None:
    """Mark the environments whose approvals nobody can give any more, and unmark those that are possible again."""
    for environment in Environment.objects.filter(archived_at=None).select_related("team").order_by("pk"):
        why = why_not_satisfiable(environment) if environment.required_approvals or _has_rules(environment) else ""
        if bool(why) == (environment.unsatisfiable_since is not None):
            continue
        with transaction.atomic():
            rows = Environment.objects.filter(pk=environment.pk)
            rows.update(unsatisfiable_since=clock.now() if why else None)
            if why:
                audit.record(
                    Action.ENVIRONMENT_UNSATISFIABLE, actor=system_user(), subject=environment, environment=environment,
                    reason=why,
                )  # fmt: skip


def _has_rules(environment: Environment) -> bool:
    return environment.approval_rules.exists()
