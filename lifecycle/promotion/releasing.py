"""The job of a release set: copy every member, then move all tags, and put all of them back when one cannot be moved.

Content comes first, so that moving the tags takes little time. What each tag pointed to is stored before the first one
moves. Whatever attempt comes next can so complete the set, or put it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from accounts.verbs import Verb
from lifecycle.authority.rights import require
from lifecycle.core.errors import Conflict, LeaseLost, LifecycleError, RegistryUnavailable
from lifecycle.core.reasons import refuse_if
from lifecycle.core.scratch import disk_full_in
from lifecycle.core.types import Digest
from lifecycle.environments.models import CURRENT_TAG
from lifecycle.ingest.services import ingest_attached, ingest_manifest
from lifecycle.ingest.writing import forget_tag
from lifecycle.jobs.handlers import JobRun, handler
from lifecycle.jobs.models import Job
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.copying import copy_by_digest, point_tag
from lifecycle.promotion import release_running
from lifecycle.promotion.kinds import RELEASE
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
from lifecycle.promotion.queries import MOVING_STATES, target_name, target_registry
from lifecycle.promotion.release_queries import members_of
from lifecycle.promotion.release_running import Former, holds_slots, is_of_run
from lifecycle.promotion.signing import TECHNICAL_CODES, sign_target
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Registry, Repository, TagEvent

State = ReleaseSet.State


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of the set, with what is needed at the registry."""

    request: PromotionRequest
    source: RegistryClient
    client: RegistryClient  # of the target, which can be in another registry
    registry: Registry  # of the target
    target: str

    @property
    def digest(self) -> Digest:
        return Digest.parse(self.request.image.digest)

    @property
    def tags(self) -> tuple[str, ...]:
        return (self.request.tag, CURRENT_TAG)


def _run_of(job: Job) -> int | None:
    """Return which run of its set a job belongs to; None for a job that was queued before jobs knew it."""
    number: int | None = job.payload.get("run")
    return number


def _gave_up(job: Job) -> None:
    release_set = ReleaseSet.objects.filter(pk=job.subject_id).first()
    if release_set is not None:
        why = job.last_error or "The registry did not answer in time."
        payload = {**job.payload, "is_again": release_set.state == State.REVERTING}
        release_running.give_up(release_set.pk, why=why, can_retry=job.error_code in TECHNICAL_CODES, payload=payload)


@handler(RELEASE, gave_up=_gave_up)
def release(run: JobRun) -> None:
    """Copy all members and move their tags, or put them back. Safe to run twice, and after a kill at any point."""
    release_set = ReleaseSet.objects.select_related("environment").get(pk=run.job.subject_id)
    if not is_of_run(release_set, _run_of(run.job)):
        return  # it was run again since, by another job
    if release_set.state == State.REVERTING:
        _put_back(run, release_set.pk)
        return
    members = _members(release_set)
    if release_set.state != State.EXECUTING or not holds_slots([m.request for m in members], run.job.payload["fences"]):
        return  # an earlier attempt ended it, but its worker died before it could report that
    try:
        _complete(run, release_set, members)
    except (RegistryUnavailable, LeaseLost):
        raise  # the next attempt goes on, or another worker does
    except LifecycleError as error:
        if disk_full_in(error) is not None:
            raise
        run.log(f"Failed: {error.message} Putting back what was changed.")
        with run.fenced():
            can_retry = error.error_code in TECHNICAL_CODES
            release_running.begin_reverting(
                release_set.pk, why=error.message, can_retry=can_retry, run=_run_of(run.job)
            )
        _put_back(run, release_set.pk)


def _members(release_set: ReleaseSet) -> list[_Member]:
    members = []
    for row in members_of(release_set):
        source, registry = client_for(row.repository.registry), target_registry(row.environment, row.repository)
        client = source if registry == row.repository.registry else client_for(registry)
        members.append(_Member(row, source, client, registry, target_name(row.environment, row.repository)))
    return members


def _complete(run: JobRun, release_set: ReleaseSet, members: Sequence[_Member]) -> None:
    requests = [member.request for member in members]
    fences: Mapping[str, int] = run.job.payload["fences"]
    # Check the right again: the user may have lost it since they ran the set.
    for row in requests:
        require(run.job.actor, Verb.PROMOTION_EXECUTE, repository=row.repository, environment=row.environment)

    def alive() -> None:
        run.check()
        if not holds_slots(requests, fences):
            raise Conflict("A rollback or break-glass took the place of a member.")
        refuse_if(release_running.why_any_quarantined(requests))  # also of one whose tags have moved already

    for number, member in enumerate(members, 1):
        name = f"{number} of {len(members)}: {member.request.repository.name}"

        def progress(done: int, total: int, text: str, name: str = name) -> None:
            run.progress(done, total, f"{name}. {text}")

        run.log(f"{name}: copying {member.digest} to {member.target}")
        alive()
        copied = copy_by_digest(
            member.source, source_repository=member.request.repository.name, target_client=member.client,
            target_repository=member.target, digest=member.digest, tags=(), alive=alive, progress=progress,
        )  # fmt: skip
        run.log(f"Verified. Manifests: {copied.manifests}. Blobs: {copied.blobs}. Referrers: {copied.referrers}.")
    former = {str(member.request.pk): _pointed_to(member, member.tags) for member in members}
    with run.fenced():
        release_running.begin_tags(release_set.pk, former, run=_run_of(run.job))
    for member in members:
        for tag in member.tags:
            alive()
            point_tag(member.client, member.target, tag, member.digest)
    for member in members:
        for tag, digest in _pointed_to(member, member.tags).items():
            if digest != member.digest.text:
                raise RegistryUnavailable(f"{member.target}:{tag} does not point to the approved digest yet.")
    run.log("All tags point to the approved digests.")
    alive()
    for member in members:
        run.log(f"{member.target}: {sign_target(member.client, member.request, member.target, alive=alive)}")
    for member in members:
        for tag in member.tags:
            alive()
            _store(run, member, tag, member.digest.text)
        if not member.registry.is_managed:  # it sends no notification of what was attached
            ingest_attached(member.registry, member.client, member.target, member.digest, alive=alive)
    with run.fenced():
        release_running.succeed(release_set.pk, run=_run_of(run.job))


def _pointed_to(member: _Member, tags: Sequence[str]) -> dict[str, str | None]:
    """Return what tags of the target point to now; None for one that does not exist."""
    found = {tag: member.client.resolve(member.target, tag) for tag in tags}
    return {tag: held.digest.text if held is not None else None for tag, held in found.items()}


def _store(run: JobRun, member: _Member, tag: str, digest: str) -> None:
    ingest_manifest(
        member.registry.pk, member.target, digest, tag=tag, actor_name=run.job.actor.username,
        via=TagEvent.Via.PROMOTION,
    )  # fmt: skip


def _put_back(run: JobRun, set_id: int) -> None:
    """Point every tag to what it pointed to before, and delete those that were not there. Rows follow.

    The place of a member that something took is left alone. What could not be put back is named in the reason. Only
    what may pass by itself is raised, for the next attempt: RegistryUnavailable, LeaseLost, a full disk.
    """
    release_set = ReleaseSet.objects.select_related("environment").get(pk=set_id)
    if not is_of_run(release_set, _run_of(run.job)):
        return
    fences: Mapping[str, int] = run.job.payload["fences"]
    former: Former = release_set.former
    problems: list[str] = []
    for member in _members(release_set):
        request = member.request
        for tag, digest in former.get(str(request.pk), {}).items():
            run.check()
            if request.state not in MOVING_STATES or not holds_slots([request], fences):
                break
            name = f"{member.target}:{tag}"
            if why := _why_not_done(_restore_tag, run, member, tag, digest):
                problems.append(f"{name} could not be put back: {why}")
            elif why := _why_not_done(_restore_row, run, member, tag, digest):
                problems.append(f"{name} was put back in the registry, but could not be recorded: {why}")
    with run.fenced():
        release_running.end_reverting(set_id, problems=problems, run=_run_of(run.job))
    done = "All targets hold what they held before." if former else "No tag was moved."
    run.log(" ".join(problems) or done)


Step = Callable[[JobRun, _Member, str, str | None], None]  # of putting back one tag to a digest; None deletes it


def _why_not_done(step: Step, run: JobRun, member: _Member, tag: str, digest: str | None) -> str:
    """Do one step of putting back, and return why it can never succeed; "" when it did.

    Raises what the next attempt can overcome.
    """
    try:
        step(run, member, tag, digest)
    except (RegistryUnavailable, LeaseLost):
        raise
    except LifecycleError as error:
        if disk_full_in(error) is not None:
            raise
        return error.message
    return ""


def _restore_tag(run: JobRun, member: _Member, tag: str, digest: str | None) -> None:
    """Put one tag back in the registry. Safe to run twice."""
    now = _pointed_to(member, [tag])[tag]
    if now == member.digest.text and now != digest:
        if digest is None:
            member.client.delete_tag(member.target, tag)
        else:
            point_tag(member.client, member.target, tag, Digest.parse(digest))
        run.log(f"{member.target}:{tag} {'deleted' if digest is None else f'points to {digest} again'}.")


def _restore_row(run: JobRun, member: _Member, tag: str, digest: str | None) -> None:
    """Put the row of one tag back. Safe to run twice."""
    if digest is not None:
        _store(run, member, tag, digest)
        return
    target = Repository.objects.filter(registry=member.registry, name=member.target).first()
    if target is not None:
        forget_tag(target, tag, expected_image_id=member.request.image_id, actor=None)
