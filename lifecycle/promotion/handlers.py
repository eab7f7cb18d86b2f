"""The promotion job (copy by digest, verify, record under the job's fence), and the scheduled tasks of promotions."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from accounts.verbs import Verb
from lifecycle import events
from lifecycle.authority.rights import require
from lifecycle.core.errors import RegistryUnavailable
from lifecycle.core.types import Digest
from lifecycle.environments.models import CURRENT_TAG, Slot
from lifecycle.events import subscribe
from lifecycle.ingest.services import ingest_manifest
from lifecycle.jobs import services as jobs
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.models import Job
from lifecycle.jobs.schedule import every
from lifecycle.oci.copying import CopyNotVerified, copy_by_digest
from lifecycle.promotion import services
from lifecycle.promotion.kinds import PROMOTE
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import MOVING_STATES, target_name
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import TagEvent

# Error codes of technical failures. The promotion itself is fine and can be run again.
_TECHNICAL: Final = jobs.TRANSIENT_CODES | {CopyNotVerified.code}


def _gave_up(job: Job) -> None:
    request = PromotionRequest.objects.filter(pk=job.subject_id).first()
    if request is not None:
        why = job.last_error or "The registry did not answer in time."
        services.fail(request, why=why, is_technical=job.error_code in _TECHNICAL)


@handler(PROMOTE, gave_up=_gave_up)
def promote(run: JobRun) -> None:
    """Copy the approved digest to the target repository. Safe to run twice: existing content is not copied again."""
    request = PromotionRequest.objects.select_related(
        "image", "repository__registry", "environment__team", "executed_by", "repository__team"
    ).get(pk=run.job.subject_id)
    if request.state not in MOVING_STATES:
        return  # an earlier attempt finished, but its worker died before it could report that
    slot = Slot.objects.get(repository=request.repository, environment=request.environment)
    if slot.fence != run.job.payload["fence"]:
        return  # a later promotion has claimed the slot; its own job runs the copy
    # Check the right again: the user may have lost it since they ran the promotion.
    require(run.job.actor, Verb.PROMOTION_EXECUTE, repository=request.repository, environment=request.environment)
    registry = request.repository.registry
    client = client_for(registry)
    target = target_name(request.environment, request.repository)
    digest = Digest.parse(request.image.digest)
    run.log(f"Copying {digest} from {request.repository.name} to {target}")
    tags = (request.tag, CURRENT_TAG)
    copied = copy_by_digest(
        client,
        source_repository=request.repository.name,
        target_repository=target,
        digest=digest,
        tags=tags,
        alive=run.check,
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
    for tag in tags:
        descriptor = client.resolve(target, tag)
        if descriptor is None or descriptor.digest != digest:
            raise RegistryUnavailable(f"The tag {tag} of {target} does not point to the approved digest yet.")
    run.log(f"The tags {' and '.join(tags)} point to the approved digest.")
    for tag in tags:
        ingest_manifest(
            registry.pk, target, digest.text, tag=tag, actor_name=run.job.actor.username, via=TagEvent.Via.PROMOTION
        )
    with run.fenced():
        services.succeed(request)


@every(5, "promotion_judging")
def judge_in_turn() -> None:
    """Evaluate due requests after the scheduler's transaction ends, so that no row lock outlives one evaluation."""
    transaction.on_commit(services.judge_open, robust=True)


@every(60, "promotion_expiry")
def expire_due() -> None:
    """Expire requests that were not approved or not run in time."""
    services.expire_due()


@subscribe(events.RightsChanged)
def judge_votes_again(event: events.RightsChanged) -> None:
    """Evaluate the requests that these users voted on again within seconds: their votes may no longer count."""
    services.mark_for_judgement(event.user_ids)
