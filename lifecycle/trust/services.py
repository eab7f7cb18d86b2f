"""Actions on trusted sources, and the check of an image's signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef

from accounts.models import Team, User
from accounts.queries import system_user
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import SourceDetails
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, LifecycleError, Malformed, RegistryUnavailable, StaleVersion
from lifecycle.core.reasons import refuse_if
from lifecycle.core.types import Digest
from lifecycle.jobs import services as jobs
from lifecycle.jobs.models import Job
from lifecycle.lineage import services as lineage
from lifecycle.oci.client import ManifestUnknown
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.signatures.types import SignatureRefused
from lifecycle.trust import sboms
from lifecycle.trust.access import lock_source, teams_called, why_not_manage
from lifecycle.trust.constants import RECHECKED_AT_ONCE, SOURCES_MAX
from lifecycle.trust.kinds import VERIFY
from lifecycle.trust.models import Attestation, Signature, TrustCheck, TrustedSigner, TrustedSource
from lifecycle.trust.queries import live_sources
from lifecycle.trust.types import Candidate, Judged, SourceSpec, is_sbom
from lifecycle.trust.verifying import PLAIN_SBOM, judge, read_documents


@transaction.atomic
def create_source(spec: SourceSpec, *, actor: User) -> TrustedSource:
    """Create a trusted source. Raises NotPermitted, NotFound for a team, or Conflict when the name is taken."""
    teams = teams_called(actor, spec.teams)
    refuse_if(why_not_manage(actor, spec.is_site_wide, teams))
    if TrustedSource.objects.filter(name=spec.name).exists():
        raise Conflict(f"There is already a trusted source named {spec.name}. Choose another name.")
    if TrustedSource.objects.filter(retired_at=None).count() >= SOURCES_MAX:
        raise Conflict(f"There are {SOURCES_MAX} trusted sources already. Retire one first.")
    source = TrustedSource.objects.create(
        name=spec.name, places=list(spec.places), needs_signature=spec.needs_signature, created_by=actor
    )
    _write(source, spec, teams)
    _record(Action.SOURCE_CREATED, source, actor)
    events.publish(events.TrustChanged(source.pk))
    return source


@transaction.atomic
def change_source(source_id: int, spec: SourceSpec, *, actor: User, revision: int | None = None) -> TrustedSource:
    """Replace a trusted source. With `revision`, only if nobody has changed it since.

    A signer that is no longer in the source counts for nothing from now on. Raises NotFound, NotPermitted, Conflict,
    StaleVersion.
    """
    source = lock_source(actor, source_id)
    if source.retired_at is not None:
        raise Conflict("This source is retired. Create a new one.")
    _refuse_if_stale(source, revision)
    teams = teams_called(actor, spec.teams)
    refuse_if(why_not_manage(actor, spec.is_site_wide, teams))
    if spec.name != source.name and TrustedSource.objects.filter(name=spec.name).exists():
        raise Conflict(f"There is already a trusted source named {spec.name}. Choose another name.")
    source.revision += 1
    _write(source, spec, teams)
    _record(Action.SOURCE_CHANGED, source, actor)
    events.publish(events.TrustChanged(source.pk))
    return source


@transaction.atomic
def retire_source(source_id: int, *, actor: User, reason: str = "", revision: int | None = None) -> TrustedSource:
    """Retire a trusted source: from now on it trusts nothing. With `revision`, only if nobody has changed it since.

    Raises NotFound, NotPermitted, Conflict, StaleVersion.
    """
    source = lock_source(actor, source_id)
    if source.retired_at is not None:
        raise Conflict("This source is already retired.")
    _refuse_if_stale(source, revision)
    source.retired_at = clock.now()
    source.revision += 1
    source.save(update_fields=["retired_at", "revision", "updated_at"])
    sboms.make_due()
    _record(Action.SOURCE_RETIRED, source, actor, reason=reason)
    events.publish(events.TrustChanged(source.pk))
    return source


def _refuse_if_stale(source: TrustedSource, revision: int | None) -> None:
    if revision is not None and revision != source.revision:
        raise StaleVersion("Somebody else has changed this source meanwhile. Load it again.")


@transaction.atomic
def put_sources(specs: Sequence[SourceSpec], *, actor: User) -> dict[str, str]:
    """Create or replace the sources of a file, by name; return {name: created, changed or unchanged}.

    All or nothing. Sources that the file does not name stay as they are.
    """
    if len({spec.name for spec in specs}) != len(specs):
        raise Malformed("A source stands twice in the file.")
    results = {}
    for spec in specs:
        present = TrustedSource.objects.filter(name=spec.name, retired_at=None).first()
        if present is None:
            create_source(spec, actor=actor)
            results[spec.name] = "created"
        elif _is_same(present, spec):
            results[spec.name] = "unchanged"
        else:
            change_source(present.pk, spec, actor=actor)
            results[spec.name] = "changed"
    return results


def _is_same(source: TrustedSource, spec: SourceSpec) -> bool:
    return (
        (source.description, tuple(source.places), source.is_site_wide, source.needs_signature)
        == (spec.description, spec.places, spec.is_site_wide, spec.needs_signature)
        and spec.valid_from in {None, source.valid_from}
        and {team.slug for team in source.teams.all()} == set(spec.teams)
        and dict(source.signers.values_list("fingerprint", "name"))
        == {signer.fingerprint: signer.name for signer in spec.signers}
    )


def _write(source: TrustedSource, spec: SourceSpec, teams: Sequence[Team]) -> None:
    source.name, source.description, source.places = spec.name, spec.description, list(spec.places)
    source.is_site_wide, source.needs_signature = spec.is_site_wide, spec.needs_signature
    if spec.valid_from is not None:
        source.valid_from = spec.valid_from
    source.save()
    source.teams.set(teams)
    # Signers that stay keep their rows, and so what they have signed.
    source.signers.exclude(fingerprint__in=[signer.fingerprint for signer in spec.signers]).delete()
    sboms.make_due()
    before = {signer.fingerprint: signer for signer in source.signers.all()}
    is_new = False
    for each in spec.signers:
        fields = {"name": each.name}
        if (row := before.get(each.fingerprint)) is not None:
            TrustedSigner.objects.filter(pk=row.pk).update(**fields)
            continue
        is_new = True
        TrustedSigner.objects.create(
            source=source, kind=each.kind, pem=each.pem, fingerprint=each.fingerprint, issuer=each.issuer,
            subject=each.subject, is_pattern=each.is_pattern, trusted_root=each.trusted_root, **fields,
        )  # fmt: skip
    if is_new:  # images that are signed may be signed by the new signer
        signed = Signature.objects.filter(image=OuterRef("image")).exclude(state=Signature.State.UNSIGNED)
        TrustCheck.objects.filter(Exists(signed)).update(is_due=True)


def _record(action: Action, source: TrustedSource, actor: User, *, reason: str = "") -> None:
    teams = list(source.teams.all())
    details = SourceDetails(
        source=source.name,
        revision=source.revision,
        places=", ".join(source.places),
        signers=", ".join(str(signer) for signer in source.signers.order_by("id")),
    )
    audit.record(
        action, actor=actor, subject=source, team=teams[0] if len(teams) == 1 else None, reason=reason, details=details
    )


def queue_check(image_id: int, *, actor: User | None = None) -> Job:
    """Queue the check of an image's signatures, and mark it as due until the check is done."""
    with transaction.atomic():
        TrustCheck.objects.update_or_create(image_id=image_id, defaults={"is_due": True})
        return jobs.queue(VERIFY, subject_id=image_id, actor=actor or system_user(), dedupe_key=f"image:{image_id}")


def queue_due_checks(limit: int = RECHECKED_AT_ONCE) -> int:
    """Queue checks that are due and have no job, such as after a change of a source; return their number."""
    waiting = Job.objects.filter(kind=VERIFY.name, subject_id=OuterRef("image_id"), state__in=("waiting", "running"))
    due = TrustCheck.objects.filter(~Exists(waiting), is_due=True).order_by("image_id")
    ids = list(due.values_list("image_id", flat=True)[:limit])
    for image_id in ids:
        queue_check(image_id)
    return len(ids)


@dataclass(frozen=True, slots=True)
class Read:
    """The documents of an image in one repository, judged."""

    repository_id: int
    judged: tuple[Judged, ...]
    has_sboms: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """What could not be read, and where; repository None: the image is nowhere that we can read."""

    repository_id: int | None
    text: str


def read_signatures(image: Image, *, alive: Callable[[], None]) -> tuple[list[Read], list[Unread]]:
    """Read and verify the signatures of an image in every repository of ours that has it.

    Returns what was found, and what could not be read. Makes requests, so call it outside a transaction. Raises
    RegistryUnavailable when a retry can help.
    """
    candidates = _candidates()
    digest = Digest.parse(image.digest)
    members = RepositoryImage.objects.filter(image=image, removed_at=None).select_related("repository__registry")
    reads: list[Read] = []
    unread: list[Unread] = []
    ours = [member.repository for member in members.order_by("id") if member.repository.registry.is_ours]
    for repository in ours:
        client = client_for(repository.registry)
        try:
            top = client.get_manifest(repository.name, digest.text)
            documents = read_documents(client, repository.name, top, alive)
        except ManifestUnknown:
            continue
        except RegistryUnavailable:
            raise
        except LifecycleError as error:
            unread.append(Unread(repository.pk, error.message[:300]))
            continue
        moment = clock.now()
        judged = tuple(judge(each, digest, candidates, now=moment) for each in documents if each.format != PLAIN_SBOM)
        has_sboms = len(judged) < len(documents) or any(is_sbom(each.predicate_type) for each in judged)
        reads.append(Read(repository.pk, judged, has_sboms))
    if not ours:
        unread.append(Unread(None, "The image is in no registry that we may read."))
    return reads, unread


def _candidates() -> list[Candidate]:
    """Return every signer of a source that is not retired. One that cannot be read any more matches nothing."""
    candidates = []
    fields = ("pk", "kind", "pem", "subject", "issuer", "is_pattern", "trusted_root")
    for row in TrustedSigner.objects.filter(source__retired_at=None).order_by("pk").values(*fields):
        try:
            candidates.append(Candidate.of(row["pk"], row))
        except SignatureRefused:
            continue
    return candidates


@transaction.atomic
def store_check(image: Image, reads: Sequence[Read], unread: Sequence[Unread]) -> Mapping[str, int]:
    """Store the result of a check in place of the former one; return {state: number of signatures}.

    Only what has changed is audited: a signature that counts and did not before, or the other way round.
    """
    TrustCheck.objects.get_or_create(image=image)
    check = TrustCheck.objects.select_for_update().get(image=image)
    before = _verified_objects(image)
    Signature.objects.filter(image=image).delete()
    moment = clock.now()
    live = set(TrustedSigner.objects.values_list("pk", flat=True))  # a signer can be removed while we read
    for read in reads:
        for judged in read.judged:
            row = Signature.objects.create(image=image, repository_id=read.repository_id, **_fields(judged, moment))
            row.signers.set([pk for pk in judged.signer_ids if pk in live])
            if judged.predicate_type:
                Attestation.objects.create(signature=row, predicate=judged.predicate, size_bytes=judged.size_bytes)
    check.is_due, check.checked_at = False, moment
    check.problem = next((each.text for each in unread if each.repository_id is None), "")
    check.unread = [
        {"repository": each.repository_id, "text": each.text} for each in unread if each.repository_id is not None
    ]
    check.save()
    lineage.set_proven_bases(image, _proven_bases(image, reads))
    events.publish(events.AttestationsRead(image.pk))
    after = _verified_objects(image)
    if after != before:
        audit.record(
            Action.IMAGE_SIGNATURES_CHANGED, actor=system_user(), subject=image, image=image,
            reason=f"{len(after - before)} more and {len(before - after)} fewer verified signatures",
        )  # fmt: skip
    counts: dict[str, int] = {}
    for state in Signature.objects.filter(image=image).values_list("state", flat=True):
        counts[state] = counts.get(state, 0) + 1
    return counts


def _proven_bases(image: Image, reads: Sequence[Read]) -> set[str]:
    """Return the bases that provenances name, by signers whom everybody trusts, or the team that had the image first.

    An edge counts for all teams. Else whoever copies an image of another team could say what that was built on.
    """
    first = RepositoryImage.objects.filter(image=image).order_by("pk").values_list("repository__team_id", flat=True)[:1]
    heard = set(
        TrustedSigner.objects.filter(source__in=live_sources(next(iter(first), None))).values_list("pk", flat=True)
    )
    return {
        base
        for read in reads
        for judged in read.judged
        if heard.intersection(judged.signer_ids)
        for base in judged.base_digests
    }


def _verified_objects(image: Image) -> set[str]:
    rows = Signature.objects.filter(image=image, state=Signature.State.VERIFIED)
    return set(rows.values_list("object_digest", flat=True))


def _fields(judged: Judged, moment: Any) -> dict[str, Any]:
    document = judged.document
    return {
        "manifest_digest": document.manifest_digest,
        "object_digest": document.object_digest,
        "position": document.position,
        "format": document.format,
        "predicate_type": judged.predicate_type,
        "state": judged.state,
        "reason": judged.reason,
        "key_fingerprint": judged.key_fingerprint,
        "identity": judged.identity,
        "issuer": judged.issuer,
        "signed_at": judged.signed_at,
        "builder_id": judged.builder_id,
        "source_uri": judged.source_uri,
        "checked_at": moment,
    }


def note_problem(image_id: int, problem: str) -> None:
    """Record that the signatures of an image could not be checked. It is not due until something asks again.

    `problem` names no repository: everybody who sees the image reads it.
    """
    TrustCheck.objects.update_or_create(image_id=image_id, defaults={"is_due": False, "problem": problem[:300]})
