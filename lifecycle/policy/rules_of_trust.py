"""The rules about signatures, provenance and trusted bases. What `lifecycle.trust` verified are the facts."""

from __future__ import annotations

from lifecycle.core.patterns import matches
from lifecycle.policy.facts import ImageFacts
from lifecycle.policy.outcomes import Evidence, Outcome, failed, passed, unknown
from lifecycle.policy.parameters import Values
from lifecycle.policy.types import BaseTrust, SignatureFact, SignatureFacts

SIGNER = "who signs the image"
_SHOWN = 3


def signed_by_any(facts: ImageFacts, values: Values) -> Outcome:
    """At least one of these sources, keys or identities signed the image."""
    return _signed(facts, values["signers"], needs_all=False)


def signed_by_all(facts: ImageFacts, values: Values) -> Outcome:
    """Every one of these sources, keys or identities signed the image."""
    return _signed(facts, values["signers"], needs_all=True)


def _signed(facts: ImageFacts, signers: tuple[str, ...], *, needs_all: bool) -> Outcome:
    signatures = _known(facts)
    if isinstance(signatures, Outcome):
        return signatures
    verified = [fact for fact in signatures.verified if not fact.is_attestation]
    found = [signer for signer in signers if any(is_signer(fact, signer) for fact in verified)]
    if found and (len(found) == len(signers) or not needs_all):
        return passed(f"Signed by {_some(found)}.", signatures=len(found))
    missing = [signer for signer in signers if signer not in found]
    refused = f" {signatures.refused[0]}" if signatures.refused else ""
    evidence = tuple(Evidence(text) for text in signatures.refused)
    summary = f"Not signed by {_some(missing)}.{refused}" if missing else "No signer is allowed."
    return failed(summary, SIGNER, evidence=evidence, signatures=len(found), required=len(signers))


def has_provenance(facts: ImageFacts, values: Values) -> Outcome:
    """A verified SLSA provenance names one of these builders, and one of these sources of the code."""
    signatures = _known(facts)
    if isinstance(signatures, Outcome):
        return signatures
    statements = [fact for fact in signatures.verified if fact.is_attestation and fact.builder_id]
    for fact in statements:
        is_source = any(matches(pattern, fact.source_uri) for pattern in values["sources"])
        if is_source and any(matches(pattern, fact.builder_id) for pattern in values["builders"]):
            return passed(f"Built by {fact.builder_id} from {fact.source_uri}.")
    evidence = tuple(Evidence(f"{fact.builder_id} from {fact.source_uri}") for fact in statements)
    if statements:
        return failed(f"The provenance names {evidence[0].text}.", "who builds the image", evidence=evidence)
    return failed("There is no verified provenance.", "who builds the image: attach a signed provenance")


def base_is_trusted(facts: ImageFacts, _values: Values) -> Outcome:
    """Every direct base of the image is from a trusted source, or the image is from one itself."""
    trust, owner = facts.base_trust, "an admin: add a trusted source, or who builds the image: use another base"
    if trust is None:
        return unknown("The trust in the bases is not known.", owner)
    if trust.status in {BaseTrust.TRUSTED, BaseTrust.SOURCE}:
        return passed("From a trusted source." if trust.status is BaseTrust.SOURCE else "The bases are trusted.")
    evidence = tuple(Evidence(f"{base.name or base.digest}: {base.reason}") for base in trust.bases if base.reason)
    if trust.status is BaseTrust.UNTRUSTED:
        return failed(trust.reason or "A base is not from a trusted source.", owner, evidence=evidence)
    return unknown(trust.reason or "No base of this image is known.", owner)


def is_signer(fact: SignatureFact, signer: str) -> bool:
    """Return whether `signer` means who made the signature: a source, the fingerprint of a key, or `identity issuer`.

    An identity can have `*`. Its issuer is exact: another issuer can give anybody the same name.
    """
    identity, space, issuer = signer.partition(" ")
    if space:
        return bool(fact.identity) and fact.issuer == issuer.strip() and matches(identity, fact.identity)
    return signer in {fact.source, fact.key_fingerprint}


def _known(facts: ImageFacts) -> SignatureFacts | Outcome:
    if facts.signatures is None or not facts.signatures.is_known:
        problem = facts.signatures.problem if facts.signatures else ""
        return unknown(problem or "The signatures have not been read yet.", "Gravingdock")
    return facts.signatures


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
