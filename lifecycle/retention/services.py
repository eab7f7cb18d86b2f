"""Retention rules and plans. Each function checks, locks, changes and audits in one transaction."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_retention import RetentionPlanned, RetentionRestored, RetentionRulesChanged
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, StaleVersion
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.states import move_row
from lifecycle.jobs import services as jobs
from lifecycle.policy.retention import DigestFacts, Judgement, Key, judge, sizes
from lifecycle.registry.models import Image, Repository, RepositoryImage
from lifecycle.retention.access import place_for, plan_for, why_not_retain
from lifecycle.retention.constants import DIGESTS_MAX, NUMBER_MAX, PATTERNS_MAX, PLAN_VALID, PLANS_MAX, RESTORABLE
from lifecycle.retention.kinds import DELETE_PLANNED, RESTORE
from lifecycle.retention.models import RetentionEntry, RetentionPlan, RetentionRules
from lifecycle.retention.queries import blobs_in_use, blobs_of, facts_of, repositories_of, rules_of

FIELDS: Final = ("keep_last", "keep_days", "tags", "untagged_days")
_PATTERN: Final = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9._*-]{0,127}")
_NAMED_MAX: Final = 100  # digests in an audit event


@transaction.atomic
def save_rules(
    *, actor: User, team: str = "", repository: int | None = None, revision: int | None, **values: Any
) -> RetentionRules:
    """Replace the rules of a team or a repository (image.delete); a value that is left out is not set.

    `revision` is the one that the actor saw, 0 without rules; None skips the check. Raises NotFound, NotPermitted,
    StaleVersion, Malformed.
    """
    owner, place = place_for(actor, team=team, repository=repository)
    refuse_if(why_not_retain(actor, owner, place))
    Team.objects.select_for_update(no_key=True).get(pk=owner.pk)
    row = rules_of(team=owner) if place is None else rules_of(repository=place)
    if revision is not None and revision != (row.revision if row else 0):
        raise StaleVersion("Another user changed these rules. Load them again, then repeat your change.")
    before = _as_text(row)
    if row is None:
        row = RetentionRules(team=None if place else owner, repository=place, revision=0)
    for name in FIELDS:
        setattr(row, name, _checked(name, values.get(name)))
    if _as_text(row) == before:
        return row
    row.revision, row.changed_by, row.changed_at = row.revision + 1, actor, clock.now()
    row.save()
    audit.record(
        Action.RETENTION_RULES_CHANGED, actor=actor, subject=row, team=owner, repository=place,
        details=RetentionRulesChanged(before=before, after=_as_text(row)),
    )  # fmt: skip
    return row


def _checked(name: str, value: Any) -> Any:
    if name == "tags":
        patterns = sorted(set(value or ()))
        if len(patterns) > PATTERNS_MAX:
            raise Malformed(f"Enter at most {PATTERNS_MAX} patterns.", field=name)
        for pattern in patterns:
            if not _PATTERN.fullmatch(pattern):
                raise Malformed(
                    f"{pattern[:80]!r} is not a tag pattern. Use a tag name; * matches any characters.", field=name
                )
        return patterns
    least = 1 if name == "keep_last" else 0
    if value is not None and not least <= value <= NUMBER_MAX:
        raise Malformed(f"Enter {least} to {NUMBER_MAX:,}, or nothing.", field=name)
    return value


def _as_text(row: RetentionRules | None) -> dict[str, str]:
    if row is None:
        return {}
    return {name: ", ".join(row.tags) if name == "tags" else str(getattr(row, name) or "") for name in FIELDS}


def make_plan(
    *, actor: User, team: str = "", repository: int | None = None, accept_unknown_runtime: bool = False
) -> RetentionPlan:
    """Judge all images of a team or a repository, and store the plan; nothing is deleted (image.delete).

    Raises NotFound, NotPermitted, or LimitExceeded for a team with too many images.
    """
    owner, place = place_for(actor, team=team, repository=repository)
    refuse_if(why_not_retain(actor, owner, place))
    return _plan(owner, place, actor, accept_unknown_runtime)


@dataclass(frozen=True, slots=True)
class Judged:
    """What `judge` says about a plan's repositories now."""

    facts: Sequence[DigestFacts]
    judgements: Mapping[Key, Judgement]

    @property
    def deleted(self) -> list[DigestFacts]:
        return [row for row in self.facts if not self.judgements[row.key].is_kept]

    @property
    def fingerprint(self) -> str:
        """What would be deleted, as a hash: other tags on a digest count as a change too."""
        content = sorted([row.repository, row.digest, *row.tags] for row in self.deleted)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def judge_now(repositories: Collection[Repository], *, accept_unknown_runtime: bool) -> Judged:
    """Judge all images of these repositories. Plan, confirmation and deletion all ask this."""
    facts = facts_of(repositories, accept_unknown_runtime=accept_unknown_runtime)
    return Judged(facts, judge(facts, clock.now()))


@transaction.atomic
def _plan(owner: Team, place: Repository | None, actor: User, accept_unknown_runtime: bool) -> RetentionPlan:
    plan = RetentionPlan(
        team=owner, repository=place, accept_unknown_runtime=accept_unknown_runtime, created_by=actor,
        created_at=clock.now(),
    )  # fmt: skip
    repositories = repositories_of(plan)
    count = RepositoryImage.objects.filter(repository__in=repositories, removed_at=None).count()
    if count > DIGESTS_MAX:
        raise Malformed(
            f"There are {count:,} images, and a plan has at most {DIGESTS_MAX:,}. Plan one repository at a time.",
            code="limit_exceeded",
        )
    judged = judge_now(repositories, accept_unknown_runtime=accept_unknown_runtime)
    deleted = [row.key for row in judged.deleted]
    blobs = blobs_of({image for _, image in deleted})
    wanted = {blob for found in blobs.values() for blob in found}
    used = blobs_in_use(wanted, {row.registry_id for row in repositories}, deleted)
    total = sizes({key: blobs[key[1]] for key in deleted}, used)
    plan.fingerprint = judged.fingerprint
    plan.delete_count, plan.keep_count = len(deleted), len(judged.facts) - len(deleted)
    plan.deleted_bytes, plan.freed_bytes = total.deleted, total.freed
    plan.save(force_insert=True)
    size_of = dict(Image.objects.filter(pk__in={row.image for row in judged.facts}).values_list("pk", "size_bytes"))
    ordered = sorted(judged.facts, key=lambda row: judged.judgements[row.key].is_kept)  # those to delete first
    RetentionEntry.objects.bulk_create(
        [_entry(plan, row, judged.judgements[row.key], size_of, total.by_key) for row in ordered], batch_size=2000
    )
    _remove_old(plan)
    if accept_unknown_runtime:
        _record(Action.RETENTION_PLANNED, plan, actor)
    return plan


def _entry(
    plan: RetentionPlan, row: DigestFacts, judgement: Judgement, size_of: Mapping[int, int], freed: Mapping[Key, int]
) -> RetentionEntry:
    return RetentionEntry(
        plan=plan, repository_id=row.repository, image_id=row.image, tags=list(row.tags),
        state=RetentionEntry.State.KEEP if judgement.is_kept else RetentionEntry.State.DELETE,
        reasons=reasons_of(judgement), size_bytes=size_of[row.image], freed_bytes=freed.get(row.key, 0),
    )  # fmt: skip


def reasons_of(judgement: Judgement) -> list[list[str]]:
    """Return the reasons as they are stored."""
    return [[why.code, why.text] for why in judgement.reasons]


def _remove_old(plan: RetentionPlan) -> None:
    """Remove the oldest plans of this place that nobody confirmed."""
    unused = RetentionPlan.objects.filter(team=plan.team_id, repository=plan.repository_id, confirmed_at=None)
    old = list(unused.order_by("-pk").values_list("pk", flat=True)[PLANS_MAX:])
    RetentionPlan.objects.filter(pk__in=old).delete()


def _record(action: Action, plan: RetentionPlan, actor: User) -> None:
    audit.record(
        action, actor=actor, subject=plan, team=plan.team, repository=plan.repository,
        details=RetentionPlanned(str(plan), plan.delete_count, plan.keep_count, plan.accept_unknown_runtime),
    )  # fmt: skip


def why_not_confirm(actor: User, plan: RetentionPlan) -> Reason | None:
    """Return why `actor` cannot confirm a plan now; None when they can, unless something has changed."""
    if (reason := why_not_retain(actor, plan.team, plan.repository)) is not None:
        return reason
    if plan.state != RetentionPlan.State.PLANNED:
        return Reason(f"{plan} is {plan.get_state_display().lower()}. Make a new plan.", Conflict)
    if plan.delete_count == 0:
        return Reason("There is nothing to delete.", Conflict)
    return None


def confirm(plan_id: int, *, actor: User) -> RetentionPlan:
    """Confirm a plan: a job deletes its images (image.delete).

    All images are judged again. If the plan is older than 24 hours, or something else would be deleted now, a new plan
    replaces it and Conflict is raised with its number. Raises NotFound, NotPermitted.
    """
    plan, anew = _confirm(plan_id, actor)
    if anew is None:
        return plan
    old = clock.now() - plan.created_at > PLAN_VALID
    why = "It is older than 24 hours" if old else "What it would delete has changed"
    raise Conflict(f"{why}. Look at the new plan {anew}, and confirm that.", code="plan_changed", plan=anew.pk)


@transaction.atomic
def _confirm(plan_id: int, actor: User) -> tuple[RetentionPlan, RetentionPlan | None]:
    plan = plan_for(actor, plan_id, locked=True)
    refuse_if(why_not_confirm(actor, plan))
    repositories = lock_repositories(plan)
    judged = judge_now(repositories, accept_unknown_runtime=plan.accept_unknown_runtime)
    if clock.now() - plan.created_at > PLAN_VALID or judged.fingerprint != plan.fingerprint:
        anew = _plan(plan.team, plan.repository, actor, plan.accept_unknown_runtime)
        move_row(plan, RetentionPlan.State.REPLACED, replaced_by=anew)
        return plan, anew
    move_row(plan, RetentionPlan.State.DELETING, confirmed_by=actor, confirmed_at=clock.now())
    _record(Action.RETENTION_CONFIRMED, plan, actor)
    jobs.queue(DELETE_PLANNED, subject_id=plan.pk, actor=actor, dedupe_key=str(plan.pk))
    return plan, None


def lock_repositories(plan: RetentionPlan) -> list[Repository]:
    """Return the repositories of a plan, locked until the transaction ends: no push or promotion writes meanwhile."""
    rows = repositories_of(plan)
    list(Repository.objects.filter(pk__in=[row.pk for row in rows]).order_by("pk").select_for_update(no_key=True))
    return rows


def restorable_of(plan: RetentionPlan) -> Any:
    """Return the deleted entries of a plan that can still be put back."""
    return plan.entries.filter(state=RetentionEntry.State.DELETED, deleted_at__gt=clock.now() - RESTORABLE)


def why_not_restore(actor: User, plan: RetentionPlan) -> Reason | None:
    """Return why `actor` cannot put back what a plan deleted; None when they can."""
    if (reason := why_not_retain(actor, plan.team, plan.repository)) is not None:
        return reason
    if plan.state not in {RetentionPlan.State.DONE, RetentionPlan.State.FAILED}:
        return Reason("Only images that this plan has deleted can be restored.", Conflict)
    if not restorable_of(plan).exists():
        return Reason(f"No deleted image can be restored: only those of the last {RESTORABLE.days} days.", Conflict)
    return None


@transaction.atomic
def restore(plan_id: int, *, actor: User, digests: Iterable[str] = ()) -> RetentionPlan:
    """Queue a job that puts back the manifests and tags that a plan deleted, or only these digests (image.delete).

    It works until the registry's collector has removed the layers. Raises NotFound, NotPermitted, Malformed for a
    digest that this plan has not deleted, Conflict.
    """
    plan = plan_for(actor, plan_id, locked=True)
    refuse_if(why_not_restore(actor, plan))
    wanted = sorted(set(digests))
    known = set(restorable_of(plan).values_list("image__digest", flat=True))
    unknown = [digest for digest in wanted if digest not in known]
    if unknown:
        raise Malformed(f"{unknown[0][:150]} cannot be restored by this plan.", field="digests")
    chosen = wanted or sorted(known)
    audit.record(
        Action.RETENTION_RESTORED, actor=actor, subject=plan, team=plan.team, repository=plan.repository,
        details=RetentionRestored(str(plan), len(chosen), tuple(chosen[:_NAMED_MAX])),
    )  # fmt: skip
    jobs.queue(RESTORE, subject_id=plan.pk, actor=actor, payload={"digests": wanted})
    return plan


def why_not_in(actor: User, repository: Repository) -> Reason | None:
    """Return why a job of `actor` cannot change this repository now."""
    decision = may(actor, Verb.IMAGE_DELETE, repository=repository, environment=repository.environment)
    return None if decision else Reason(decision.reason)
