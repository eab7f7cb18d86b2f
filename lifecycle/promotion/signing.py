"""What travels with a promoted image: signature, judged SBOM and VEX, SLSA verification summary, promotion record."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import orjson
from django.conf import settings

from lifecycle.core import clock
from lifecycle.core.errors import NotFound
from lifecycle.core.types import Digest
from lifecycle.evidence.exporting import export
from lifecycle.jobs import services as jobs
from lifecycle.oci.client import AccessDenied, CredentialsRefused, QuotaExceeded, RegistryClient
from lifecycle.oci.copying import CopyNotVerified
from lifecycle.promotion.models import Evaluation, PromotionRequest, Vote
from lifecycle.promotion.queries import target_registry
from lifecycle.registry.models import Image
from lifecycle.signatures.constants import CYCLONEDX, MIB, OPENVEX, VSA
from lifecycle.trust import signing
from lifecycle.trust.constants import SIGNED_MAX_BYTES
from lifecycle.trust.signers import SignerRefused, SignerUnavailable
from lifecycle.trust.types import Claim

# Error codes of technical failures of a copy or of its signature: what was approved is fine and can be run again.
# Waiting does not mend refused credentials, a missing right or a full quota: the job ends, and a user runs it again.
TECHNICAL_CODES: Final = jobs.TRANSIENT_CODES | {
    CopyNotVerified.code,
    SignerUnavailable.code,
    SignerRefused.code,
    CredentialsRefused.code,
    AccessDenied.code,
    QuotaExceeded.code,
}
PROMOTION: Final = "https://gravingdock.dev/attestation/promotion/v1"


def sign_target(client: RegistryClient, request: PromotionRequest, target: str, *, alive: Callable[[], None]) -> str:
    """Sign a promoted image in its target, and return what was done, as a sentence. Safe to run twice.

    Called after the copy is verified, and before the promotion succeeds. Raises RegistryUnavailable, RegistryRefused.
    """
    keys = signing.active_keys()
    if not keys:
        return "Not signed: there is no signing key."
    host = target_registry(request.environment, request.repository).host
    evaluation = request.evaluations.order_by("-pk").first()
    sbom, why_none = _sbom(request)
    vex = _vex(request)
    claims = [
        *(claim for claim in (sbom, vex) if claim is not None),
        Claim.of(VSA, _summary(request, f"{host}/{target}@{request.image.digest}", evaluation)),
        Claim.of(PROMOTION, _promotion(request, evaluation, sbom, vex)),
    ]
    words = []
    for key in keys:  # two, while verifiers learn the newer one
        made = signing.sign_image(
            client,
            target,
            Digest.parse(request.image.digest),
            key=key,
            reference=f"{host}/{target}",
            claims=claims,
            alive=alive,
        )
        words.append(f"Signed with {key.name}: {made} new objects." if made else f"Already signed with {key.name}.")
    return " ".join([*words, f"Without an SBOM. {why_none}"] if why_none else words)


def _sbom(request: PromotionRequest) -> tuple[Claim | None, str]:
    """Return (the packages of the image as CycloneDX, "" or why there is none).

    The serial number is made from the content, so the same packages are attested once, and the promotion's record
    names it. Metadata of users is left out: it can change any time, and does not say what is in the image.
    """
    if request.image.kind == Image.Kind.ARTIFACT:
        return None, "Only container images have one."
    document = bytearray()
    try:
        for part in export(request.image, "cdx.json", metadata={})[1]:
            document += part
            if len(document) > SIGNED_MAX_BYTES:
                return None, f"It is larger than {SIGNED_MAX_BYTES // MIB} MiB."
    except NotFound as error:
        return None, error.message
    serial = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, Digest.of(bytes(document)).text)}"
    return Claim(CYCLONEDX, b'{"serialNumber":"%b",%b' % (serial.encode(), bytes(document[1:])), serial), ""


def _vex(request: PromotionRequest) -> Claim | None:
    """Return the decisions that counted for the findings of the image, as OpenVEX; None when nobody decided.

    Who can pull the image can read it, so it says as much as the export does to somebody who can see no decision:
    status and justification, but no reason and no author.
    """
    if request.image.kind == Image.Kind.ARTIFACT:
        return None
    try:
        document = orjson.loads(b"".join(export(request.image, "openvex.json", metadata={})[1]))
    except NotFound:  # its packages are unknown, which `_sbom` says
        return None
    if not document["statements"]:
        return None
    # Named by its content, so the same decisions are attested once, and the promotion's record names them.
    content = orjson.dumps(document["statements"], option=orjson.OPT_SORT_KEYS)
    name = f"{document['@id']}/{Digest.of(content).encoded}"
    return Claim.of(OPENVEX, document | {"@id": name, "version": 1})


def _summary(request: PromotionRequest, resource: str, evaluation: Evaluation | None) -> dict[str, Any]:
    """Return a SLSA verification summary: https://slsa.dev/spec/v1.0/verification_summary."""
    policy = {"uri": f"{settings.PUBLIC_URL}/promotions/{request.pk}/"}
    if evaluation is not None:
        policy["digest"] = {"sha256": Digest.parse(evaluation.digest).encoded}  # type: ignore[assignment]  # JSON
    return {
        "verifier": {"id": settings.PUBLIC_URL},
        "timeVerified": clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        "resourceUri": resource,
        "policy": policy,
        "verificationResult": "PASSED",
        "verifiedLevels": [f"GRAVINGDOCK_PROMOTED_{request.environment.slug.upper().replace('-', '_')}"],
        "slsaVersion": "1.0",
    }


def _promotion(
    request: PromotionRequest, evaluation: Evaluation | None, sbom: Claim | None, vex: Claim | None
) -> dict[str, Any]:
    """Return the record of a promotion: who asked, who approved, what was judged."""
    votes = request.votes.filter(value=Vote.Value.APPROVE, lapsed_at=None).select_related("voter", "evaluation")
    votes = votes.order_by("at")
    return {
        "promotion": request.pk,
        "repository": request.repository.name,
        "environment": request.environment.slug,
        "tag": request.tag,
        "requestedBy": request.requested_by.username,
        "requestedAt": _moment(request.created_at),
        "reason": request.reason,
        "executedBy": request.executed_by.username if request.executed_by else None,
        "approvals": [_approval(vote) for vote in votes],
        "evaluation": evaluation.digest if evaluation is not None else None,
        "requirements": evaluation.requirements if evaluation is not None else [],
        "sbom": sbom.about if sbom is not None else None,
        "vex": vex.about if vex is not None else None,
    }


def _approval(vote: Vote) -> dict[str, Any]:
    """Return an approval; `signed` is what `lifecycle/signatures/votes.py` checks, offline too."""
    return {
        "by": vote.voter.username,
        "at": _moment(vote.at),
        "digest": vote.digest,
        "evaluation": vote.evaluation.digest if vote.evaluation is not None else None,
        "signed": vote.signed,
    }


def _moment(value: Any) -> str | None:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if value is not None else None
