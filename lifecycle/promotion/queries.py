"""Queries about promotion requests that several callers share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from accounts.models import Robot, User
from accounts.verbs import Verb
from lifecycle.advisories.queries import current_names
from lifecycle.authority.identity import (
    counted_voters,
    is_reset,
    one_account_each,
    reasons_not_counted,
    robot_tokens,
    same_person,
)
from lifecycle.authority.queries import covered, people_who
from lifecycle.authority.resets import cooling
from lifecycle.authority.services.moving import blocks_move
from lifecycle.authority.services.security import security_now
from lifecycle.core.errors import Conflict
from lifecycle.core.reasons import Reason
from lifecycle.environments.models import CURRENT_TAG, Environment, Slot
from lifecycle.environments.queries import previous_environment
from lifecycle.evidence.findings import advisory_changes, finding_severities, is_matching, unjudged_in
from lifecycle.evidence.judgement import judgement_of
from lifecycle.ingest.managing import blocks_deletion
from lifecycle.ingest.metadata import as_record
from lifecycle.ingest.openness import blocks_archive
from lifecycle.ingest.protection import expected_in_target
from lifecycle.policy.judging import judge_promotion
from lifecycle.policy.types import ObjectionFacts, PlatformFacts, PromotionFacts
from lifecycle.policy.windows import Opening
from lifecycle.promotion.approval_rules import rules_of
from lifecycle.promotion.automatic import why_not_automatic
from lifecycle.promotion.exclusions import allowed_by, excluded_from, requesters_of
from lifecycle.promotion.gates import policy_gate, with_policy
from lifecycle.promotion.holds import facts_of_holds
from lifecycle.promotion.models import Comment, PromotionRequest, Vote
from lifecycle.promotion.opening import closed_words, opening_for
from lifecycle.promotion.soaking import soak_of
from lifecycle.quarantine.queries import covers_of_image
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, RebuildWave
from lifecycle.registry.models import Image, Registry, Repository
from lifecycle.registry.platforms import PlatformTree, missing_of, platform_ids, trees_of

LIVE_STATES: Final = (PromotionRequest.State.OPEN, PromotionRequest.State.READY)
MOVING_STATES: Final = (PromotionRequest.State.EXECUTING, PromotionRequest.State.VERIFYING)
SEVERE: Final = frozenset({"critical", "high"})  # a new finding of this severity makes earlier approvals lapse
RESULT_STATES: Final = (
    PromotionRequest.State.SUCCEEDED,
    PromotionRequest.State.REJECTED,
    PromotionRequest.State.EXPIRED,
    PromotionRequest.State.SUPERSEDED,
    PromotionRequest.State.WITHDRAWN,
)  # a failed one has its own list in the inbox
RESULTS_FOR: Final = timedelta(days=30)  # an unseen result is no news after this
UNMET: Final = "unmet"  # the status of a requirement that was still open when its request ended
_SKIPS_STAGES: Final[dict[str, str]] = {
    PromotionRequest.Kind.ROLLBACK: "A rollback goes to an image that was here before.",
    PromotionRequest.Kind.BREAK_GLASS: "Break-glass skips it.",
}
JUDGED_AGAIN_AFTER: Final = timedelta(seconds=30)  # even when no input is known to have changed


def target_name(environment: Environment, repository: Repository) -> str:
    """Return the name of the repository that promotions from `repository` to `environment` fill."""
    return f"{environment.prefix}/{repository.name}"


def target_registry(environment: Environment, repository: Repository) -> Registry:
    """Return the registry that promotions from `repository` to `environment` copy to: the one that an admin chose for
    the environment, else the managed one. It is never another one, where we have an account of the site.
    """
    if environment.registry is not None:
        return environment.registry
    return repository.registry if repository.registry.is_managed else Registry.objects.get(is_managed=True)


def target_reference(environment: Environment, repository: Repository) -> str:
    """Return the target repository as clients write it: `<host>/<prefix>/<name>`."""
    return f"{target_registry(environment, repository).host}/{target_name(environment, repository)}"


def promotions_visible_to(actor: User) -> QuerySet[PromotionRequest]:
    """Return the requests that `actor` can see by repository or environment, with the joins that a list needs."""
    return with_joins(requests_where(actor, Verb.IMAGE_VIEW))


def with_joins(rows: QuerySet[PromotionRequest]) -> QuerySet[PromotionRequest]:
    """Return `rows` with the joins that a list and an answer need."""
    return rows.select_related(
        "image", "repository__team", "repository__registry", "environment__team", "environment__registry",
        "source_environment", "requested_by", "superseded_by", "debt__settled_by",
    )  # fmt: skip


def requests_where(actor: User, verb: Verb) -> QuerySet[PromotionRequest]:
    """Return the requests for whose source repository and environment `actor` has `verb`."""
    if actor.kind == User.Kind.SYSTEM and actor.is_active:
        return PromotionRequest.objects.all()
    is_covered = covered(actor, verb, team="repository__team", family="repository__family", environment="environment")
    return PromotionRequest.objects.filter(is_covered)


def decidable_by(actor: User) -> QuerySet[PromotionRequest]:
    """Return the open requests that `actor` can vote on alone; sets have a query of their own."""
    return decidable_members(actor).filter(release_set=None)


def decidable_members(actor: User) -> QuerySet[PromotionRequest]:
    """Return the open requests that `actor` can vote on, and the open members of sets that they can vote on as a whole.

    They have the right, are not excluded, and have no vote in force there.
    """
    if not actor.is_person or actor.secret_seen_by_id is not None:
        return PromotionRequest.objects.none()
    mine = requests_where(actor, Verb.PROMOTION_APPROVE).values("pk")
    others = PromotionRequest.objects.filter(release_set=OuterRef("release_set")).exclude(pk__in=mine)
    return (
        promotions_visible_to(actor)
        .filter(Q(release_set=None) | ~Exists(others), state=PromotionRequest.State.OPEN, pk__in=mine)
        .exclude(Exists(cooling().order_by().filter(user=actor)))
        .exclude(Exists(standing_votes().filter(request=OuterRef("pk"), voter=actor)))
        .exclude(_is_own(actor), environment__excludes_requester=True)
        .exclude(_is_built_by(actor), environment__excludes_build_trigger=True)
    )


def standing_votes() -> QuerySet[Vote]:
    """Return the votes in force: not taken back, and not lapsed."""
    return Vote.objects.filter(lapsed_at=None).exclude(value=Vote.Value.WITHDRAW)


def _is_own(actor: User) -> Q:
    """Return the condition that `actor` counts as the requester, as `exclusions.requesters_of`."""
    return (
        Q(requested_by=actor)
        | Q(requested_by__robot__created_by=actor)
        | Q(requested_by__robot__responsible=actor)
        | Q(Exists(robot_tokens().filter(user=OuterRef("requested_by"), made_by=actor)))
        | Q(requested_by__in=Robot.objects.filter(trust_rules__made_by=actor).values("user"))
        | Q(requested_by__in=same_person(actor))
    )


def _is_built_by(actor: User) -> Q:
    """Return the condition that `actor` started the rebuild of the image itself; its page also looks at platforms."""
    return Q(Exists(RebuildJob.objects.filter(new_image=OuterRef("image"), wave__confirmed_by=actor)))


def decidable_count(actor: User) -> int:
    """Return the number of requests and sets that `actor` can vote on, for the badge in the top bar. A set is one."""
    counts = decidable_members(actor).aggregate(
        alone=Count("pk", filter=Q(release_set=None)), sets=Count("release_set", distinct=True)
    )
    return int(counts["alone"] + counts["sets"])


def unseen_results_of(actor: User) -> QuerySet[PromotionRequest]:
    """Return the requests of `actor` that ended lately, as they have not seen yet. Page them by -id.

    What they withdrew themselves is no news to them: `withdraw` marks it as seen.
    """
    mine = promotions_visible_to(actor).filter(requested_by=actor, release_set=None)
    ended = mine.filter(state__in=RESULT_STATES, seen_at=None)
    return ended.filter(finished_at__gt=Now() - RESULTS_FOR)


def debts_visible_to(actor: User) -> QuerySet[PromotionRequest]:
    """Return the uses of break-glass that `actor` can see and that nobody has reviewed, the most urgent first."""
    return promotions_visible_to(actor).filter(debt__isnull=False, debt__settled_at=None).order_by("debt__due_at", "pk")


def debts_to_settle(actor: User) -> QuerySet[PromotionRequest]:
    """Return the open uses of break-glass that `actor` can review; not their own."""
    if not actor.is_person:
        return PromotionRequest.objects.none()
    mine = Q(requested_by=actor) | Q(executed_by=actor)
    may_approve = requests_where(actor, Verb.PROMOTION_APPROVE).values("pk")
    return debts_visible_to(actor).filter(pk__in=may_approve).exclude(mine)


def executable_by(actor: User) -> QuerySet[PromotionRequest]:
    """Return the ready requests that `actor` is allowed to run."""
    rows = promotions_visible_to(actor).filter(state=PromotionRequest.State.READY, release_set=None)
    glass = Q(kind=PromotionRequest.Kind.BREAK_GLASS)
    return rows.filter(
        (~glass & Q(pk__in=requests_where(actor, Verb.PROMOTION_EXECUTE).values("pk")))
        | (glass & Q(pk__in=requests_where(actor, Verb.PROMOTION_BREAKGLASS).values("pk")))
    )


def has_been_in(request: PromotionRequest, environment: Environment) -> bool:
    """Return whether this digest is or was in `environment`, according to slots and succeeded promotions."""
    return (
        Slot.objects.filter(repository=request.repository, environment=environment, image=request.image).exists()
        or PromotionRequest.objects.filter(
            repository=request.repository,
            environment=environment,
            image=request.image,
            state=PromotionRequest.State.SUCCEEDED,
        ).exists()
    )


def evidence_of(request: PromotionRequest) -> dict[str, Any]:
    """Return the evidence for voters in the format of `Evaluation.inputs`; a fixed number of queries."""
    slot = Slot.objects.filter(repository=request.repository_id, environment=request.environment_id)
    current_slot = slot.select_related("image").first()
    holds = current_slot.image if current_slot is not None else None
    severities = finding_severities([request.image, holds] if holds is not None else [request.image])
    now, before = severities[request.image.pk], severities[holds.pk] if holds is not None else {}
    findings = None
    ids = platform_ids(request.image)
    if now is not None and not is_matching(ids):
        platforms = Image.objects.filter(pk__in=ids).defer("manifest", "config")
        known = [judgement_of(platform) for platform in platforms]
        severe = sorted(f"{key.osv_id} {key.name}" for key, severity in now.items() if severity in SEVERE)
        changes = advisory_changes(before or {}, now.keys(), unjudged_in(ids))
        findings = {  # advisories: each counts once, however many packages it affects
            "open": len(changes.new) + len(changes.same),
            "fixed": None if before is None else len(changes.fixed),
            "new": None if before is None else len(changes.new),
            "severe": severe,
            "unjudged": sum(platform.unjudged_count for platform in known),
            "without_packages": sum(not platform.package_count for platform in known),
        }
    evidence = {
        "digest": request.image.digest,
        "environment": request.environment.slug,
        "tag": request.tag,
        "holds": holds.digest if holds is not None else None,
        "findings": findings,
    }
    metadata = as_record(request.repository, request.image)
    return evidence | ({"metadata": metadata} if metadata else {})


def renamed(severe: Iterable[str]) -> set[str]:
    """Return entries of `severe` of earlier evidence, with all names that their vulnerabilities have now."""
    pairs = [entry.split(" ", 1) for entry in severe]
    names = current_names({pair[0] for pair in pairs})
    return {f"{name} {package}" for osv_id, package in pairs for name in names.get(osv_id, ())}


def facts_of(request: PromotionRequest) -> PromotionFacts:
    """Return the facts that decide about `request`, read now. Voters' current rights count, not those at the vote."""
    votes = request.votes.filter(value=Vote.Value.APPROVE, digest=request.image.digest, lapsed_at=None)
    unsigned = []
    if request.environment.requires_signed_votes:
        unsigned = list(votes.filter(signed__isnull=True).select_related("voter").order_by("pk"))
        votes = votes.filter(signed__isnull=False)
    weak = []
    if request.environment.is_production and security_now().step_up_is_on:
        weak = list(votes.filter(is_strong=False).select_related("voter").order_by("pk"))
        votes = votes.exclude(is_strong=False)
    excluded = excluded_from(request)
    may_approve = people_who(
        Verb.PROMOTION_APPROVE,
        team=request.environment.team,
        family=request.repository.family,
        environment=request.environment,
    ).exclude(pk__in=excluded)
    voters = list(may_approve.filter(votes__in=votes).select_related("secret_seen_by"))
    approvers, uncounted = _one_vote_each(voters, excluded)
    others = [*excluded, *(person.pk for person in approvers)]
    # Also who can only approve again tomorrow: a request is not impossible because an admin reset a password today.
    eligible = counted_voters(may_approve, others, or_later=True).exclude(
        ~Q(is_reset("pk")), pk__in=[person.pk for person in voters]
    )
    people = {person.pk: person.username for person in [*approvers, *eligible]}
    before = previous_environment(request.environment)
    tree = trees_of([request.image])[request.image.pk]
    return PromotionFacts(
        required_approvals=required_approvals(request),
        approvers=sorted(person.username for person in approvers),
        eligible=[person.username for person in eligible],
        rules=[]
        if request.kind == PromotionRequest.Kind.ROLLBACK
        else rules_of(request.environment, people, family=request.repository.family),
        soak=soak_of(request),
        holds=facts_of_holds(request),
        objections=_objections(request),
        open_threads=list(open_threads(request).values_list("author__username", flat=True)),
        quarantines=[cover.words for cover in covers_of_image(request.image)],
        exclusions=_exclusion_words(request, excluded),
        allowances=allowed_by(request.environment),
        uncounted=[
            *uncounted,
            *(_unsigned_words(vote.voter) for vote in unsigned),
            *(_weak_words(vote.voter) for vote in weak),
        ],
        skips_stages=_SKIPS_STAGES.get(request.kind, ""),
        platforms=_platforms(tree),
        artifact=request.image.noun if request.image.kind == Image.Kind.ARTIFACT else "",
        missing_platforms=[*missing_of(tree), *(["manifests nested too deeply"] if tree.is_cut else [])],
        previous_environment=before.slug if before else None,
        is_or_was_in_previous=before is not None and has_been_in(request, before),
    )


def _weak_words(voter: User) -> str:
    return (
        f"The approval of {voter} does not count: production needs a second factor, and it was given without one."
        f" {voter} can approve again in the browser."
    )


def _unsigned_words(voter: User) -> str:
    return (
        f"The approval of {voter} does not count: it is not signed with a passkey."
        f" {voter} can add one, and approve again in the browser."
    )


def required_approvals(request: PromotionRequest) -> int:
    """Return how many approvals a request needs: at most one for a rollback, and none of its approval rules."""
    required = request.environment.required_approvals
    return min(required, 1) if request.kind == PromotionRequest.Kind.ROLLBACK else required


def open_threads(request: PromotionRequest) -> QuerySet[Comment]:
    """Return the threads that stop the request until somebody resolves them."""
    return request.comments.filter(thread=None, is_blocking=True, resolved_at=None).order_by("pk")


def threads_of(request: PromotionRequest) -> list[Comment]:
    """Return the threads of a request in order, each with its answers in `said`; one query."""
    rows = list(request.comments.select_related("author", "resolved_by").order_by("pk"))
    threads = [row for row in rows if row.thread_id is None]
    for row in threads:
        row.said = [answer for answer in rows if answer.thread_id == row.pk]  # type: ignore[attr-defined]  # for pages and the API
    return threads


def _objections(request: PromotionRequest) -> list[ObjectionFacts]:
    """Return the objections of people who can still approve. An objection stays when the evidence changes."""
    rows = request.votes.filter(value=Vote.Value.OBJECT).select_related("voter", "overruled_by").order_by("at", "pk")
    votes = list(rows)
    if not votes:
        return []
    still = people_who(
        Verb.PROMOTION_APPROVE,
        team=request.environment.team,
        family=request.repository.family,
        environment=request.environment,
    ).filter(pk__in=[vote.voter_id for vote in votes])
    names = set(still.values_list("pk", flat=True))
    return [
        ObjectionFacts(vote.voter.username, vote.comment, vote.overruled_by.username if vote.overruled_by else "")
        for vote in votes
        if vote.voter_id in names
    ]


def _exclusion_words(request: PromotionRequest, excluded: Mapping[int, str]) -> list[str]:
    """Return one sentence for each user who does not count on this request."""
    others = set(excluded) - requesters_of(request)
    names = User.objects.filter(pk__in=others, is_active=True).order_by("username") if others else ()
    words = ["The requester does not count."] if request.environment.excludes_requester else []
    for person in names:
        why = excluded[person.pk].replace("you ", "they ")
        words.append(f"{person} does not count: {why}.")
    return words


def _one_vote_each(voters: Sequence[User], requester_ids: Collection[int]) -> tuple[list[User], list[str]]:
    """Return the voters that count, one for each person, and why each of the others does not."""
    counted: list[User] = []
    why: list[str] = []
    reasons = reasons_not_counted(voters, requester_ids)
    same = one_account_each([voter for voter in voters if voter.pk not in reasons])
    for voter in voters:
        if reason := reasons.get(voter.pk):
            why.append(f"The approval of {voter} does not count: {reason}")
        elif same[voter.pk] != voter:
            other = same[voter.pk]
            why.append(
                f"The approval of {voter} does not count:"
                f" {voter} and {other} share a verified mail or a sign-in identity."
            )
        else:
            counted.append(voter)
    return counted, why


def due_for_judgement(limit: int) -> list[int]:
    """Return the ids of the open and ready requests to evaluate now, at most `limit`, the most urgent first.

    First come requests whose inputs changed since their last evaluation: packages or findings of the image, or the
    slots of the source repository in the team's environments. Then come requests not evaluated for JUDGED_AGAIN_AFTER.
    This finds changes without a time stamp, such as a lost right. Votes and runs also evaluate the request.
    """
    live = PromotionRequest.objects.filter(state__in=LIVE_STATES)
    since = OuterRef("judged_at")
    is_rescanned = Q(scanned_at__gt=since) | Q(risk_at__gt=since)
    changed = live.filter(
        Q(judged_at=None)
        | Exists(Image.objects.filter(is_rescanned, pk=OuterRef("image")))
        | Exists(Image.objects.filter(is_rescanned, parents__index=OuterRef("image")))
        | Exists(
            Slot.objects.filter(
                repository=OuterRef("repository"), environment__team=OuterRef("environment__team"), since__gt=since
            )
        )
    )
    ids = list(changed.order_by(F("judged_at").asc(nulls_first=True), "pk").values_list("pk", flat=True)[:limit])
    old = live.filter(judged_at__lt=Now() - JUDGED_AGAIN_AFTER).exclude(pk__in=ids).order_by("judged_at", "pk")
    return ids + list(old.values_list("pk", flat=True)[: limit - len(ids)])


@expected_in_target.answered_by
def target_names(target: Repository, tag: str, image: Image) -> bool | None:
    """Return whether a tag of a target must point to `image`, by our records; None while its promotion is running.

    A worker that hung in its last request can still move a tag after later promotions. A registry cannot refuse that,
    so our records decide afterwards (docs/adr/0007).
    """
    promotions = PromotionRequest.objects.filter(repository=target.source_id, environment=target.environment_id)
    if promotions.filter(image=image, state__in=MOVING_STATES).exists():
        return None
    if tag == CURRENT_TAG:
        return Slot.objects.filter(repository=target.source_id, environment=target.environment_id, image=image).exists()
    last = promotions.filter(tag=tag, state=PromotionRequest.State.SUCCEEDED).order_by("-finished_at", "-pk").first()
    return last is not None and last.image_id == image.pk


@blocks_deletion.answered_by
def why_image_is_needed(repository: Repository, image: Image) -> Reason | None:
    """Return the unfinished request that would fail if the image were deleted, as a reason; None without one."""
    live = PromotionRequest.objects.filter(repository=repository, image=image, state__in=PromotionRequest.NEXT).first()
    if live is None:
        return None
    return Reason(f"{live} is not finished. Withdraw it, or wait until it has ended.", Conflict)


@blocks_archive.answered_by
def _blocks_archive(repository: Repository) -> Reason | None:
    """Return the promotion from the repository that is not finished yet, as a reason not to archive it."""
    live = PromotionRequest.objects.filter(repository=repository, state__in=PromotionRequest.NEXT)
    first = live.order_by("pk").first()
    return Reason(f"{first} is open. Finish or withdraw it first.", Conflict) if first is not None else None


@blocks_move.answered_by
def what_needs_the_team(repository_ids: Collection[int]) -> dict[int, list[str]]:
    """Return {repository id: what must end before it can move}: votes and plans count by the roles of its team."""
    needed: dict[int, list[str]] = defaultdict(list)
    live = PromotionRequest.objects.filter(repository__in=repository_ids, state__in=PromotionRequest.NEXT)
    for request in live.order_by("pk"):
        needed[request.repository_id].append(f"{request} is {request.state}")
    unfinished = (RebuildWave.State.PLANNED, RebuildWave.State.RUNNING)
    waves = {wave: [wave.repository_id] for wave in RebuildWave.objects.filter(
        repository__in=repository_ids, state__in=unfinished)}  # fmt: skip
    jobs = RebuildJob.objects.filter(repository__in=repository_ids, wave__state__in=unfinished).select_related("wave")
    for job in jobs:
        waves.setdefault(job.wave, []).append(job.repository_id)
    for wave, ids in sorted(waves.items(), key=lambda item: item[0].pk):
        for pk in set(ids):
            needed[pk].append(f"{wave} is {wave.state}")
    for pk in BuilderPermit.objects.filter(repository__in=repository_ids).values_list("repository_id", flat=True):
        needed[pk or 0].append("the embedded builder is on for it; an admin must turn it off first")
    return needed


def detail_of(request: PromotionRequest) -> PromotionRequest:
    """Return `request` with what its detail shows beside its columns.

    These are `judged_requirements` (see `requirements_now`), `waiting`, `opens_at`, `not_automatic`, `threads` and
    `cast_votes`.
    """
    request.judged_requirements = requirements_now(request)  # type: ignore[attr-defined]  # read by the API's serializer
    opening = opening_for(request) if request.state == PromotionRequest.State.READY else Opening(True)
    request.waiting = closed_words(opening)  # type: ignore[attr-defined]  # likewise
    request.opens_at = opening.opens_at  # type: ignore[attr-defined]  # likewise
    is_ready = request.state == PromotionRequest.State.READY
    request.not_automatic = why_not_automatic(request) if is_ready else ""  # type: ignore[attr-defined]  # likewise
    votes = request.votes.select_related("voter", "evaluation", "overruled_by").order_by("pk")
    request.threads = threads_of(request)  # type: ignore[attr-defined]  # likewise
    request.cast_votes = list(votes)  # type: ignore[attr-defined]  # likewise
    return request


def requirements_now(request: PromotionRequest) -> list[dict[str, Any]]:
    """Return the requirements as JSON: evaluated now for an open or ready request, else from its last evaluation."""
    if request.state in LIVE_STATES:
        verdict = with_policy(judge_promotion(facts_of(request)), policy_gate(request), request)
        return [requirement.as_json() for requirement in verdict.requirements]
    last = request.evaluations.order_by("-pk").first()
    return as_ended(request, last.requirements) if last else []


def as_ended(request: PromotionRequest, requirements: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the requirements of the last evaluation. In a request that has ended, nobody can meet an open one now."""
    if not request.is_final:
        return list(requirements)
    return [
        {**item, "status": UNMET, "who": []} if item["status"] in {"pending", "unsatisfied", "error"} else item
        for item in requirements
    ]


def _platforms(tree: PlatformTree) -> list[PlatformFacts]:
    """Return the platform manifests of an image: itself, or all manifests below an index."""
    ids = [pk for _, pk in tree.manifests]
    rows = Image.objects.defer("manifest", "config").annotate(is_known=~Q(manifest=b"")).in_bulk(ids)
    matching = is_matching(ids)
    known = {pk: judgement_of(row) for pk, row in rows.items()}
    return [
        PlatformFacts(
            digest=rows[pk].digest,
            platform=platform or rows[pk].platform,
            is_known=rows[pk].is_known,
            is_scanned=rows[pk].scanned_at is not None,
            scan_problem=rows[pk].scan_problem,
            is_matched=not matching,
            package_count=known[pk].package_count,
            unjudged_count=known[pk].unjudged_count,
            unknown=known[pk].why,
        )
        for platform, pk in tree.manifests
    ]
