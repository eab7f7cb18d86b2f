"""The promotion job (copy by digest, verify, record under the job's fence), and the scheduled tasks of promotions."""

from __future__ import annotations

from django.db import transaction

from lifecycle import events
from lifecycle.audit.actions import Action
from lifecycle.authority.rights import require
from lifecycle.core.errors import Conflict, RegistryUnavailable
from lifecycle.core.reasons import refuse_if
from lifecycle.core.types import Digest
from lifecycle.environments.models import CURRENT_TAG, Slot
from lifecycle.events import subscribe
from lifecycle.ingest.services import ingest_attached, ingest_manifest
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.models import Job
from lifecycle.jobs.schedule import every
from lifecycle.oci.copying import copy_by_digest
from lifecycle.promotion import (
    automation,
    breakglass,
    marking,
    release_sets,
    release_telling,
    services,
    telling,
    verification,
)
from lifecycle.promotion import releasing as releasing  # noqa: PLC0414 -- registers the job of release sets
from lifecycle.promotion.access import verb_to_run
from lifecycle.promotion.environments import recheck_approvers
from lifecycle.promotion.kinds import CHECK, PROMOTE
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import MOVING_STATES, target_name, target_registry
from lifecycle.promotion.signing import TECHNICAL_CODES, sign_target
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import TagEvent


def _gave_up(job: Job) -> None:
    request = PromotionRequest.objects.filter(pk=job.subject_id).first()
    if request is not None:
        why = job.last_error or "The registry did not answer in time."
        services.fail(request, why=why, is_technical=job.error_code in TECHNICAL_CODES)


@handler(PROMOTE, gave_up=_gave_up)
def promote(run: JobRun) -> None:
    """Copy the approved digest to the target repository. Safe to run twice: existing content is not copied again."""
    request = PromotionRequest.objects.select_related(
        "image", "repository__registry", "environment__team", "environment__registry", "executed_by", "repository__team"
    ).get(pk=run.job.subject_id)
    if request.state not in MOVING_STATES or request.verify_by is not None:
        return  # an earlier attempt finished, but its worker died before it could report that
    slot = Slot.objects.get(repository=request.repository, environment=request.environment)
    if slot.fence != run.job.payload["fence"]:
        return  # a later promotion has claimed the slot; its own job runs the copy
    # Check the right again: the user may have lost it since they ran the promotion.
    require(run.job.actor, verb_to_run(request), repository=request.repository, environment=request.environment)

    def alive() -> None:
        run.check()
        if not Slot.objects.filter(pk=slot.pk, fence=slot.fence).exists():
            raise Conflict("A rollback or break-glass took its place.")
        refuse_if(why_quarantined(request.image))  # also before each tag is set

    registry = target_registry(request.environment, request.repository)
    source_client = client_for(request.repository.registry)
    client = source_client if registry == request.repository.registry else client_for(registry)
    target = target_name(request.environment, request.repository)
    digest = Digest.parse(request.image.digest)
    run.log(f"Copying {digest} from {request.repository.name} to {registry.host}/{target}")
    tags = (request.tag, CURRENT_TAG)
    copied = copy_by_digest(
        source_client,
        target_client=client,
        source_repository=request.repository.name,
        target_repository=target,
        digest=digest,
        tags=tags,
        alive=alive,
        progress=run.progress,
    )
    run.log(
        f"Verified in the target. Manifests: {copied.manifests}. Blobs: {copied.blobs} "
        f"({copied.mounted} mounted, {copied.uploaded} uploaded). Referrers: {copied.referrers}."
    )
    for deleted in copied.deleted:
        run.log(f"{deleted} is listed as a referrer, but {request.repository.name} no longer has it.")
    with run.fenced():
        services.verify(request)
    alive()
    for tag in tags:
        descriptor = client.resolve(target, tag)
        if descriptor is None or descriptor.digest != digest:
            raise RegistryUnavailable(f"The tag {tag} of {target} does not point to the approved digest yet.")
    run.log(f"The tags {' and '.join(tags)} point to the approved digest.")
    run.log(sign_target(client, request, target, alive=alive))
    for tag in tags:
        ingest_manifest(
            registry.pk, target, digest.text, tag=tag, actor_name=run.job.actor.username, via=TagEvent.Via.PROMOTION
        )
    if not registry.is_managed:  # it sends no notification of what was attached
        ingest_attached(registry, client, target, digest, alive=alive)
    with run.fenced():
        services.succeed(request)


@handler(CHECK)
def check(run: JobRun) -> None:
    """Ask the service of the environment whether a promoted image works there. Waits while it cannot say."""
    request = PromotionRequest.objects.select_related(
        "image", "repository__registry", "repository__team", "environment__team"
    ).get(pk=run.job.subject_id)
    if request.state != PromotionRequest.State.VERIFYING or request.verify_by is None:
        return  # it was verified, ran out of time, or something took its place
    reply = verification.ask(request, attempt=run.job.payload["fence"])
    run.log(reply.words)
    if reply.is_good is None:
        raise Postponed(reply.words, seconds=verification.AGAIN_AFTER_S)
    with run.fenced():
        verification.record_reply(request.pk, reply)


@every(30, "promotion_verification")
def end_verification() -> None:
    """Fail promotions that nobody verified in time."""
    transaction.on_commit(verification.fail_overdue, robust=True)


@every(5, "promotion_judging")
def judge_in_turn() -> None:
    """Evaluate due requests after the scheduler's transaction ends, so that no row lock outlives one evaluation."""
    transaction.on_commit(services.judge_open, robust=True)


@every(60, "promotion_expiry")
def expire_due() -> None:
    """Expire requests and sets that were not approved or not run in time, and remind of the deadlines of sets."""
    services.expire_due()
    transaction.on_commit(release_sets.tend, robust=True)


@every(300, "promotion_reminders")
def remind_due() -> None:
    """Remind of deadlines that are near."""
    transaction.on_commit(automation.remind_due, robust=True)
    transaction.on_commit(breakglass.remind_of_reviews, robust=True)


@every(5, "promotion_automation")
def act_by_itself() -> None:
    """Supersede older requests where the latest wins, then run what the environment runs without a user."""
    transaction.on_commit(automation.supersede_older, robust=True)
    transaction.on_commit(automation.run_automatically, robust=True)


@subscribe(events.AuditRecorded)
def act_at_once(event: events.AuditRecorded) -> None:
    """Run a request that became ready as soon as this is stored; the pass above is for what was held back."""
    if event.action != Action.PROMOTION_READY or event.subject_id is None:
        return
    if PromotionRequest.objects.filter(pk=event.subject_id, environment__auto_execute=True).exists():
        transaction.on_commit(automation.run_automatically, robust=True)


@every(120, "environment_approvers")
def recheck_environments() -> None:
    """Find environments that lost the people whom their approval rules need."""
    recheck_approvers()


@subscribe(events.RightsChanged)
def judge_votes_again(event: events.RightsChanged) -> None:
    """Evaluate the requests that these users voted on again within seconds: their votes may no longer count."""
    marking.mark_for_judgement(event.user_ids)


@subscribe(events.PolicyChanged)
def judge_by_new_policy(event: events.PolicyChanged) -> None:
    """Evaluate the open and ready requests of the place again within seconds: stricter regresses, looser releases."""
    marking.mark_for_policy(event.team_id, event.environment_id)


@subscribe(events.AuditRecorded)
def tell_people(event: events.AuditRecorded) -> None:
    """Tell those who can act on a promotion, and its requester, what happened."""
    telling.tell_about(event)
    release_telling.tell_about_set(event)


@subscribe(events.QuarantineChanged)
def judge_quarantined(event: events.QuarantineChanged) -> None:
    """Evaluate the open and ready requests of the covered images again within seconds, with the reason."""
    marking.mark_for_quarantine(event.quarantine_id)


@subscribe(events.PentestsChanged)
def judge_by_pentests(event: events.PentestsChanged) -> None:
    """Evaluate the open and ready requests again within seconds: also images built on the tested one are concerned."""
    marking.mark_for_policy(None, None)


@subscribe(events.ExternalAnswered)
def judge_by_answer(event: events.ExternalAnswered) -> None:
    """Evaluate the open and ready requests of the image again within seconds."""
    marking.mark_for_answer(event.image_id, event.repository_id)
