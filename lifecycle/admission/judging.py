"""Decides about images and objects from a snapshot alone: no database, no network, no clock but the one given."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from lifecycle.admission.carrying import Entries, is_open, key_of, text_hash
from lifecycle.admission.constants import ANNOTATION, CONTROLLERS, JUDGED_MAX, REASON_MIN, REFERENCE_MAX
from lifecycle.admission.pods import isolation_results
from lifecycle.admission.snapshot import BindingEntry, ClusterEntry, Flags, Snapshot
from lifecycle.admission.types import CLOSED, Code, ImageResult, Named, Outcome, Review
from lifecycle.core.errors import MalformedReference
from lifecycle.core.image_names import ImageName, parse_image_name
from lifecycle.policy.isolation_types import ImageConfig

_HOST: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
Why = tuple[Code, str, str]  # code, reason, who can resolve it
_FINE: Final[Why] = (Code.ALLOWED, "", "")


@lru_cache(maxsize=8192)
def _parsed(reference: str) -> ImageName | None:
    """Return a reference with nothing left out; None when it is malformed."""
    if len(reference) > REFERENCE_MAX:
        return None
    try:
        name = parse_image_name(reference)
    except MalformedReference:
        return None
    return name if _HOST.fullmatch(name.host) else None


def judge_review(
    snapshot: Snapshot, cluster: ClusterEntry, review: Review, now: float | None = None, entries: Entries | None = None
) -> Outcome:
    """Return what is decided about an object. Mode off decides nothing.

    `entries` are break-glass annotations that came in since the snapshot.
    """
    binding = cluster.binding_for(review.namespace)
    mode = _mode(cluster, binding)
    if mode == "off" or not review.is_judged:
        return Outcome(mode)
    named = review.images
    if named is None:
        unreadable = ImageResult(
            review.kind or "object", "", "", Code.MALFORMED_REFERENCE, "The object has no readable pod spec.",
            "Ask who runs the cluster to check the rules of the webhook.",
        )  # fmt: skip
        results: tuple[ImageResult, ...] = (unreadable,)
    else:
        results = judge_images(snapshot, cluster, binding, named, now)
    environment = _environment_name(snapshot, binding)
    if binding is not None and named is not None:
        modes = snapshot.isolation.get(str(binding.environment_id), {})
        results += isolation_results(review, modes, lambda reference: _facts_of(snapshot, reference))
    outcome = Outcome(
        mode,
        binding.environment_id if binding else None,
        environment,
        results,
        tuple(result for result in results if not result.is_allowed),
    )
    if not review.annotation.strip():
        return outcome
    known = _Known(snapshot, cluster, binding, time.time() if now is None else now, entries)
    return _with_breakglass(known, review, outcome)


def _mode(cluster: ClusterEntry, binding: BindingEntry | None) -> str:
    if cluster.mode == "off":
        return "off"
    if binding is None:
        return cluster.mode if cluster.unbound == "deny" else "observe"
    return binding.mode or cluster.mode


def judge_images(
    snapshot: Snapshot,
    cluster: ClusterEntry,
    binding: BindingEntry | None,
    named: Iterable[Named],
    now: float | None = None,
) -> tuple[ImageResult, ...]:
    """Return what is decided about each image."""
    age = snapshot.age_s(time.time() if now is None else now)
    is_stale = age > cluster.stale_after_s
    return tuple(_judge_image(snapshot, cluster, binding, image, is_stale=is_stale) for image in named)


def _digest_of(snapshot: Snapshot, name: ImageName) -> str:
    """Return the digest that a reference names now; "" when no registry of ours has its tag."""
    host = snapshot.hosts.get(name.host)
    return name.digest or (snapshot.digest_of(f"{host}/{name.repository}", name.tag) if host is not None else "")


def _facts_of(snapshot: Snapshot, reference: str) -> ImageConfig | None:
    name = _parsed(reference)
    digest = _digest_of(snapshot, name) if name is not None else ""
    flags = snapshot.flags_of(digest) if digest else None
    return flags.image if flags is not None else None


def _judge_image(
    snapshot: Snapshot, cluster: ClusterEntry, binding: BindingEntry | None, image: Named, *, is_stale: bool
) -> ImageResult:
    reference = image.reference.replace("\0", "")[:REFERENCE_MAX]
    name = _parsed(image.reference)
    if name is None:
        why: Why = (Code.MALFORMED_REFERENCE, "This is not an image reference.", "Correct the reference.")
        return ImageResult(image.where, reference, "", *why)
    host = snapshot.hosts.get(name.host)
    digest = _digest_of(snapshot, name)
    flags = snapshot.flags_of(digest) if digest else None
    if flags is not None and flags.quarantine:
        why = (Code.QUARANTINED, flags.quarantine, "Two people with image.quarantine can lift it.")
    elif is_stale:
        why = (Code.SNAPSHOT_STALE, "The answers of Gravingdock are too old.", "Ask an admin of Gravingdock.")
    elif binding is None:
        manager = f"Ask team {cluster.team} (environment.manage)."
        why = (Code.NO_ENVIRONMENT, "The namespace is bound to no environment.", manager)
    elif host is None:
        why = _why_not_foreign(cluster, binding, name)
    else:
        where = _environment_name(snapshot, binding)
        why = _why_not_here(flags, str(binding.environment_id), where) if digest else _unknown(name)
        if why is _FINE and not name.digest:
            is_target = snapshot.targets.get(f"{host}/{name.repository}") == binding.environment_id
            why = _why_not_by_tag(cluster, name, digest, where, is_target=is_target)
    return ImageResult(image.where, reference, digest, *why)


def _why_not_foreign(cluster: ClusterEntry, binding: BindingEntry, name: ImageName) -> Why:
    if name.host in binding.hosts:
        return _FINE
    who = f"Ask team {cluster.team} to promote the image, or to allow the registry."
    return Code.FOREIGN_REGISTRY, f"{name.host} is no registry of Gravingdock.", who


def _unknown(name: ImageName) -> Why:
    return Code.UNKNOWN_TAG, f"No registry has {name.repository}:{name.tag}.", "Check the name, or push it."


def _why_not_by_tag(cluster: ClusterEntry, name: ImageName, digest: str, where: str, *, is_target: bool) -> Why:
    """Return why an image that may run here cannot be named by this tag.

    Nodes pull a tag again without asking. Only promotions move the tags of target repositories; others can be moved to
    an image that nobody approved.
    """
    if cluster.tags == "require_digest":
        return Code.TAG_NOT_ALLOWED, "Images are named by digest here.", f"Use {name.repository}@{digest}."
    if not is_target:
        who = f"Use {name.repository}@{digest}, or the tag in the repository that promotions to {where} fill."
        return Code.TAG_NOT_ALLOWED, f"{name.repository} is no repository of {where}, so its tags can move.", who
    return _FINE


def _why_not_here(flags: Flags | None, environment_id: str, where: str) -> Why:
    """Return what is decided about a digest in an environment."""
    if flags is None:
        return Code.UNKNOWN_DIGEST, "No registry has this digest.", "Push the image, then promote it."
    standing, reason = flags.standing.get(environment_id, ("", ""))
    if standing == "allowed":
        return _FINE
    verdicts: dict[str, Why] = {
        "rejected": (
            Code.REJECTED,
            reason or f"Its promotion to {where} was rejected.",
            f"Ask the approvers of {where}.",
        ),
        "policy": (
            Code.POLICY,
            reason or f"The policy of {where} does not allow it.",
            f"Ask security of team {where.partition('/')[0]}.",
        ),
    }
    not_promoted = (Code.NOT_PROMOTED, f"It was not promoted to {where}.", f"Request a promotion to {where}.")
    return verdicts.get(standing, not_promoted)


def _environment_name(snapshot: Snapshot, binding: BindingEntry | None) -> str:
    return "/".join(snapshot.environments.get(str(binding.environment_id), ("?",))) if binding else ""


@dataclass(frozen=True, slots=True)
class _Known:
    """What a review is answered from."""

    snapshot: Snapshot
    cluster: ClusterEntry
    binding: BindingEntry | None
    now: float
    entries: Entries | None

    def is_carried_on(self, review: Review, name: str) -> bool:
        """Return whether an entry of the workload, or of the owner, opens what has this name."""
        begins_at = self.cluster.begins_at if self.binding is None else self.binding.begins_at
        for key in entry_keys(review, name):
            entered_at = self.entries.entered_at(self.cluster.pk, key) if self.entries is not None else None
            if is_open(self.cluster.entries.get(key), entered_at, begins_at, self.now):
                return True
        return False


def _with_breakglass(known: _Known, review: Review, outcome: Outcome) -> Outcome:
    """Return the outcome with what the break-glass annotation opens, or with the refusal of the annotation.

    The person is checked where the annotation enters: with a bare Pod or a controller. Kubernetes' own controllers
    carry it on for an owner, for what the object had in which we saw that person bring it in.
    """
    reason = review.annotation.strip()
    cluster, is_carrying = known.cluster, is_carried(review)
    is_permitted = is_carrying or may_break_glass(cluster, review.user, review.groups)
    is_entering = review.operation == "CREATE" or review.annotation != review.old_annotation
    if is_entering and not is_permitted:
        refusal = ImageResult(
            "annotation", ANNOTATION, "", Code.BREAKGLASS_NOT_PERMITTED, "You may not break glass in this cluster.",
            f"Ask team {cluster.team} (environment.manage), or remove the annotation.",
        )  # fmt: skip
        return replace(outcome, refused=(refusal, *outcome.refused))
    if not is_permitted or len(reason) < REASON_MIN:
        return outcome
    opened = [result for result in outcome.refused if result.code not in CLOSED]
    if is_entering and not is_carrying and review.kept:  # it is for what the object has already, too
        kept = judge_images(known.snapshot, cluster, known.binding, review.kept, known.now)
        opened += [result for result in kept if not result.is_allowed and result.code not in CLOSED]
    names = _opened_names(known.snapshot, review, opened)
    if is_carrying:
        kept_open = [known.is_carried_on(review, name) for name in names]
        opened = [result for result, is_kept in zip(opened, kept_open, strict=True) if is_kept]
        names = [name for name, is_kept in zip(names, kept_open, strict=True) if is_kept]
    if not opened:
        return outcome
    left = tuple(result for result in outcome.refused if result not in opened)
    return replace(
        outcome, refused=left, opened=tuple(opened), breakglass=reason, opened_names=tuple(sorted(set(names)))
    )  # fmt: skip


def _opened_names(snapshot: Snapshot, review: Review, results: Sequence[ImageResult]) -> list[str]:
    """Return what each result is called in an entry: the digest; without one the reference; a check with its images."""
    if all(result.code is not Code.ISOLATION for result in results):
        return [result.digest or result.reference for result in results]
    images: dict[str, str] = {}
    for named in (*(review.images or ()), *review.kept):
        parsed = _parsed(named.reference)
        images[named.where] = (_digest_of(snapshot, parsed) if parsed is not None else "") or named.reference
    together = sorted(set(images.values()))
    whole = hashlib.sha256("\0".join(together).encode("utf-8", "replace")).hexdigest()
    return [
        f"{result.where}: {result.reference} with {images.get(result.where, f'images {whole}')}"[:JUDGED_MAX]
        if result.code is Code.ISOLATION
        else result.digest or result.reference
        for result in results
    ]


def is_carried(review: Review) -> bool:
    """Return whether one of Kubernetes' own controllers asks, for an owner whose annotation it carries on."""
    return review.user in CONTROLLERS and review.has_controller


def entry_keys(review: Review, name: str) -> list[str]:
    """Return the keys under which what has this name may have been opened: for the workload, and for the owner."""
    sha256 = text_hash(review.annotation)
    places = dict.fromkeys((review.workload, review.owner))
    return [key_of(review.namespace, place, sha256, name) for place in places if place[1]]


def may_break_glass(cluster: ClusterEntry, user: str, groups: Iterable[str]) -> bool:
    """Return whether a user of the cluster is among those who may break glass there."""
    return f"user:{user}" in cluster.subjects or any(f"group:{group}" in cluster.subjects for group in groups)


def pinned(snapshot: Snapshot, binding: BindingEntry, image: Named) -> str:
    """Return the reference with the digest that its tag names now.

    "" when it has one, and when the tag is unknown or names what may not run here: what a tag of a hidden repository
    names is no answer for everybody who can ask.
    """
    name = _parsed(image.reference)
    host = snapshot.hosts.get(name.host) if name is not None else None
    if name is None or name.digest or host is None:
        return ""
    digest = snapshot.digest_of(f"{host}/{name.repository}", name.tag)
    flags = snapshot.flags_of(digest) if digest else None
    if flags is None or flags.quarantine or _why_not_here(flags, str(binding.environment_id), "") is not _FINE:
        return ""
    has_tag = ":" in image.reference.rpartition("/")[2]
    return f"{image.reference}{'' if has_tag else ':latest'}@{digest}"
