"""Actions on waivers. Each function checks, locks, changes and audits in one transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q

from accounts.models import Team, User
from accounts.queries import system_user
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.advisories.models import Match
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import WaiverDetails
from lifecycle.authority.identity import why_not_second, why_token_not_counted
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, IllegalTransition, Malformed
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.states import move_row
from lifecycle.core.types import Digest
from lifecycle.environments.models import Environment
from lifecycle.policies.access import waiver_for
from lifecycle.policies.models import Waiver
from lifecycle.policies.queries import effective_rules
from lifecycle.policy.catalogue import CEL, ISOLATION
from lifecycle.policy.facts import Need
from lifecycle.policy.rulesets import Rule
from lifecycle.registry.models import Repository, RepositoryImage

State = Waiver.State
WARN_DAYS: Final = (14, 3, 1)  # a warning so many days before the end
_BATCH: Final = 200  # waivers of one scheduled run


@transaction.atomic
def request_waiver(
    team: Team,
    rule: str,
    *,
    actor: User,
    reason: str,
    ticket: str,
    until: datetime,
    repository: Repository | None = None,
    environment: Environment | None = None,
    digest: str = "",
    advisory: str = "",
    package: str = "",
) -> Waiver:
    """Ask for an exception to a rule. It has no effect until a second person approves it.

    Raises NotPermitted, Malformed for a wrong or missing value, and Conflict when the same waiver is open or approved.
    """
    decision = may(actor, Verb.WAIVER_REQUEST, team=team, repository=repository, environment=environment)
    refuse_if(None if decision else Reason(decision.reason))
    refuse_if(_why_not_scope(team, repository, environment, digest))
    known = {item.key: item for item in effective_rules(team, environment).rules}
    refuse_if(_why_not_rule(known.get(rule), rule, advisory, package))
    refuse_if(_why_not_text(reason, ticket, until, known[rule]))
    same = {"team": team, "rule": rule, "repository": repository, "environment": environment, "digest": digest,
            "advisory": advisory, "package": package}  # fmt: skip
    Team.objects.select_for_update().get(pk=team.pk)
    if other := Waiver.objects.filter(state__in=Waiver.NEXT, **same).first():
        raise Conflict(f"{other} is {other.state} for the same. Revoke it first.")
    waiver = Waiver.objects.create(
        **same,
        reason=reason.strip(),
        ticket=ticket.strip(),
        until=until,
        requested_by=actor,
        had_fix=bool(fix_of(advisory, package)),
    )
    _record(Action.WAIVER_REQUESTED, waiver, actor, reason=waiver.reason)
    return waiver


def _why_not_scope(
    team: Team, repository: Repository | None, environment: Environment | None, digest: str
) -> Reason | None:
    if repository is None and environment is None:
        return Reason("Name a repository or an environment. No waiver covers a whole team.", Malformed)
    if repository is not None and (repository.team_id != team.pk or repository.source_id is not None):
        return Reason("Name a source repository of this team.", Malformed)
    if environment is not None and environment.team_id != team.pk:
        return Reason("Name an environment of this team.", Malformed)
    if digest:
        name = Digest.parse(digest).text
        if not RepositoryImage.objects.filter(repository=repository, image__digest=name, removed_at=None).exists():
            return Reason("The repository has no image with this digest.", Malformed)
    return None


def _why_not_rule(rule: Rule | None, key: str, advisory: str, package: str) -> Reason | None:
    if rule is None:
        return Reason(f"No rule {key[:60]} applies there.", Malformed)
    if not rule.is_waivable:
        return Reason(f"{rule.words} cannot be waived. Its owner decided this.", Malformed)
    if package and not advisory:
        return Reason("Name the advisory too, or leave the package out.", Malformed)
    takes_files = rule.kind not in {CEL, ISOLATION} and Need.CONTENTS in rule.kind_of.needs
    if advisory and not takes_files and rule.kind not in {"findings", "no_worse"}:
        return Reason(f"{rule.words} is not about findings or files. Leave the advisory out.", Malformed)
    return None


def _why_not_text(reason: str, ticket: str, until: datetime, rule: Rule) -> Reason | None:
    if not reason.strip() or not ticket.strip():
        return Reason("Enter a reason and a ticket.", Malformed)
    if len(reason) > 2000 or len(ticket) > 300:
        return Reason("A reason has at most 2000 characters, a ticket 300.", Malformed)
    now = clock.now()
    if until <= now:
        return Reason("The end must be in the future.", Malformed)
    if until > now + timedelta(days=rule.max_waiver_days):
        return Reason(f"Waivers of {rule.words} last at most {rule.max_waiver_days} days.", Malformed)
    return None


def why_not_decide(actor: User, waiver: Waiver) -> Reason | None:
    """Return why `actor` cannot approve or reject a waiver. Nobody decides about their own."""
    if not actor.is_person:
        return Reason("Only people can decide about waivers.")
    if actor.pk == waiver.requested_by_id:
        return Reason("Someone else has to decide about the waiver that you requested.")
    own = [waiver.requested_by_id]
    if uncounted := why_not_second(actor, own) or why_token_not_counted():
        return Reason(uncounted)
    decision = may(
        actor, Verb.WAIVER_APPROVE, team=waiver.team, repository=waiver.repository, environment=waiver.environment
    )
    if not decision:
        return Reason(decision.reason)
    return _why_not_state(waiver, State.REQUESTED)


def why_not_revoke(actor: User, waiver: Waiver) -> Reason | None:
    """Return why `actor` cannot end a waiver: the requester can, and who can approve it."""
    decision = may(
        actor, Verb.WAIVER_APPROVE, team=waiver.team, repository=waiver.repository, environment=waiver.environment
    )
    if actor.pk != waiver.requested_by_id and not decision:
        return Reason(decision.reason)
    return None if waiver.state in Waiver.NEXT else _why_not_state(waiver, State.APPROVED)


def _why_not_state(waiver: Waiver, wanted: str) -> Reason | None:
    return None if waiver.state == wanted else Reason(f"{waiver} is already {waiver.state}.", IllegalTransition)


@transaction.atomic
def approve_waiver(waiver_id: int, *, actor: User, reason: str = "") -> Waiver:
    """Approve a waiver as a second person. Raises NotFound, NotPermitted, IllegalTransition."""
    waiver = waiver_for(actor, waiver_id, locked=True)
    refuse_if(why_not_decide(actor, waiver))
    if waiver.until <= clock.now():
        raise IllegalTransition(f"{waiver} ended before it was approved.")
    _move(waiver, State.APPROVED, decided_by=actor, decided_at=clock.now(), decision=reason.strip()[:2000])
    _record(Action.WAIVER_APPROVED, waiver, actor, reason=waiver.decision)
    _publish(waiver)
    return waiver


@transaction.atomic
def reject_waiver(waiver_id: int, *, actor: User, reason: str) -> Waiver:
    """Reject a waiver, with a reason. Raises NotFound, NotPermitted, IllegalTransition, Malformed."""
    waiver = waiver_for(actor, waiver_id, locked=True)
    refuse_if(why_not_decide(actor, waiver))
    if not reason.strip():
        raise Malformed("Enter a reason: the requester needs to know what to change.")
    _move(waiver, State.REJECTED, decided_by=actor, decided_at=clock.now(), decision=reason.strip()[:2000])
    _record(Action.WAIVER_REJECTED, waiver, actor, reason=waiver.decision)
    return waiver


@transaction.atomic
def revoke_waiver(waiver_id: int, *, actor: User, reason: str = "") -> Waiver:
    """End a waiver before its time. Raises NotFound, NotPermitted, IllegalTransition."""
    waiver = waiver_for(actor, waiver_id, locked=True)
    refuse_if(why_not_revoke(actor, waiver))
    _move(waiver, State.REVOKED, decision=reason.strip()[:2000] or waiver.decision)
    _record(Action.WAIVER_REVOKED, waiver, actor, reason=reason.strip())
    _publish(waiver)
    return waiver


def _move(waiver: Waiver, state: str, **changes: object) -> None:
    """Move a locked waiver to `state`; the only writer of `state`. Raises IllegalTransition."""
    if state not in Waiver.NEXT:
        changes["ended_at"] = clock.now()
    move_row(waiver, state, **changes)


def _publish(waiver: Waiver) -> None:
    events.publish(events.PolicyChanged(waiver.team_id, waiver.environment_id))
    if waiver.advisory and waiver.environment_id is None:  # its findings are waived, or open again
        events.publish(events.WaiversChanged((waiver.pk,)))


def _record(action: Action, waiver: Waiver, actor: User, *, reason: str = "") -> None:
    audit.record(
        action, actor=actor, subject=waiver, team=waiver.team, repository=waiver.repository,
        environment=waiver.environment, reason=reason,
        details=WaiverDetails(rule=waiver.rule, advisory=waiver.advisory, package=waiver.package,
                              digest=waiver.digest, until=waiver.until.isoformat()),
    )  # fmt: skip


def fix_of(advisory: str, package: str) -> str:
    """Return a version that fixes a vulnerability in a package, as some advisory says it now; "" for none."""
    if not advisory:
        return ""
    rows = Match.objects.filter(valid_to=None, state=Match.State.OPEN, advisory__vulnerability=advisory)
    namespace, _, name = package.rpartition("/")
    if package:
        rows = rows.filter(package__name=name, package__namespace=namespace)
    return rows.exclude(fixed_version="").values_list("fixed_version", flat=True).first() or ""


def end_waivers() -> int:
    """End waivers whose time is over or whose fix shipped, and record warnings; return how many rows changed.

    Safe to run twice. Each waiver has its own transaction, so that one bad row stops no other.
    """
    now, changed = clock.now(), 0
    live = Waiver.objects.filter(ended_at=None)
    due = live.filter(
        Q(until__lte=now + timedelta(days=WARN_DAYS[0])) | (~Q(advisory="") & Q(had_fix=False, state=State.APPROVED))
    )
    for pk in due.order_by("until", "pk").values_list("pk", flat=True)[:_BATCH]:
        with transaction.atomic():
            rows = Waiver.objects.select_for_update(of=("self",), skip_locked=True)
            waiver = rows.select_related("team", "repository", "environment").filter(pk=pk, ended_at=None).first()
            changed += bool(waiver is not None and _end_or_warn(waiver, now))
    return changed


def _end_or_warn(waiver: Waiver, now: datetime) -> bool:
    if waiver.until <= now:
        _move(waiver, State.EXPIRED)
        _record(Action.WAIVER_EXPIRED, waiver, system_user())
        _publish(waiver)
        return True
    if waiver.state != State.APPROVED:
        return False
    if not waiver.had_fix and (version := fix_of(waiver.advisory, waiver.package)):
        _move(waiver, State.CLOSED, decision=f"A fix is available: {version}.")
        _record(Action.WAIVER_CLOSED, waiver, system_user(), reason=waiver.decision)
        _publish(waiver)
        return True
    days = next((days for days in reversed(WARN_DAYS) if waiver.until <= now + timedelta(days=days)), None)
    if days is None or (waiver.warned_days is not None and waiver.warned_days <= days):
        return False
    waiver.warned_days = days
    waiver.save(update_fields=["warned_days"])
    _record(Action.WAIVER_ENDING, waiver, system_user(), reason=f"It ends on {waiver.until:%Y-%m-%d}.")
    return True
