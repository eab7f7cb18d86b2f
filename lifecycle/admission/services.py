"""What admission would say, for people and pipelines, and the manifest of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.admission import certificates
from lifecycle.admission.judging import judge_review, may_break_glass
from lifecycle.admission.manifest import Wish, manifest_of
from lifecycle.admission.models import AdmissionDebt, AdmissionEpoch
from lifecycle.admission.queries import snapshot_content
from lifecycle.admission.reviews import review_of_object
from lifecycle.admission.snapshot import NAME as SNAPSHOT
from lifecycle.admission.snapshot import BadSnapshot, ClusterEntry, Snapshot, look_at
from lifecycle.admission.types import BadReview, Code, ImageResult, Named, Review
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_clusters import AdmissionDebtReviewed
from lifecycle.authority.identity import names_of, why_not_counted, why_token_not_counted
from lifecycle.authority.queries import images_visible_to
from lifecycle.authority.rights import may
from lifecycle.clusters.models import Cluster, Mode
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.inventory.queries import bundles_said

IMAGES_MAX: Final = 100
COMMENT_MAX: Final = 2000
_HIDDEN: Final = "Not found, or you don't have access."


class _Newest:
    """The newest snapshot of this machine, read again only when it changed."""

    def __init__(self) -> None:
        self._seen: tuple[int, bytes] | None = None
        self._taken: Snapshot | None = None

    def get(self) -> Snapshot:
        """Return it; when this machine has none that includes the newest cluster, one that is built now."""
        path = Path(settings.ADMISSION_FOLDER) / SNAPSHOT
        try:
            seen, at = look_at(path)
            if self._taken is None or seen != self._seen:
                self._taken, self._seen = Snapshot(path), seen
            self._taken.written_at = at
        except (OSError, BadSnapshot):
            return Snapshot.of(snapshot_content(0)[0])
        return self._taken


_newest: Final = _Newest()


def explain(
    cluster: Cluster,
    *,
    actor: User,
    namespace: str,
    images: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    user: str = "",
    groups: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what admission would say about images or an object, without recording it. Raises Malformed.

    Images that `actor` cannot see look like unknown ones, unless they may run there.
    """
    if bool(images) == (given is not None):
        raise Malformed("Give either images or an object.", field="images")
    snapshot, entry = newest_for(cluster)
    try:
        review = _review(namespace, images, given, user)
    except BadReview as error:
        raise Malformed(str(error), field="object") from None
    review = replace(review, groups=frozenset(groups))
    outcome = judge_review(snapshot, entry, review)
    # Judged again without what is hidden, so that nothing of the answer can tell it from what does not exist.
    outcome = judge_review(snapshot.without(hidden_from(actor, outcome.images)), entry, review)
    return {
        "allowed": outcome.is_allowed,
        "mode": outcome.mode,
        "environment": outcome.environment or None,
        "snapshot": {"number": snapshot.number, "age_s": round(max(snapshot.age_s(), 0), 1)},
        "images": [_shown(result).as_json() for result in outcome.images],
        "breakglass": {
            "permitted": may_break_glass(entry, user, groups),
            "reason": outcome.breakglass or None,
            "opened": [result.code.value for result in outcome.opened],
            "refused": any(result.code is Code.BREAKGLASS_NOT_PERMITTED for result in outcome.refused),
        },
    }


def newest_for(cluster: Cluster) -> tuple[Snapshot, ClusterEntry]:
    """Return the newest snapshot that knows a cluster, and what it knows of it."""
    snapshot = _newest.get()
    entry = snapshot.clusters.get(cluster.slug)
    if entry is None:  # added a moment ago
        snapshot = Snapshot.of(snapshot_content(snapshot.number)[0])
        entry = snapshot.clusters[cluster.slug]
    return snapshot, entry


def _review(namespace: str, images: Sequence[str], given: Mapping[str, Any] | None, user: str) -> Review:
    if given is not None:
        return review_of_object(given, namespace, user)
    named = tuple(Named(f"images[{index}]", reference) for index, reference in enumerate(images))
    return Review(namespace=namespace, user=user, images=named)


def hidden_from(actor: User, results: Sequence[ImageResult]) -> set[str]:
    """Return the digests that `actor` cannot see, and that are refused somewhere."""
    digests = {result.digest for result in results if result.digest and not result.is_allowed}
    return digests - set(images_visible_to(actor).filter(digest__in=digests).values_list("digest", flat=True))


def _shown(result: ImageResult) -> ImageResult:
    is_unknown = result.code in {Code.UNKNOWN_DIGEST, Code.UNKNOWN_TAG}
    return replace(result, reason=_HIDDEN) if is_unknown else result


def manifest_for(cluster: Cluster) -> str:
    """Return the YAML for `kubectl apply`, with placeholders for what is secret. Raises Malformed for another kind."""
    if cluster.kind != Cluster.Kind.KUBERNETES:
        raise Malformed("Only Kubernetes clusters have a manifest. Others ask by API, and send reports.")
    enforces = cluster.mode == Mode.ENFORCE or cluster.bindings.filter(mode=Mode.ENFORCE).exists()
    return manifest_of(
        Wish(
            cluster=cluster.slug,
            admission_url=settings.ADMISSION_URL,
            public_url=settings.PUBLIC_URL,
            is_enforcing=enforces and cluster.mode != Mode.OFF,
            is_mutating=cluster.mutate,
            bundle=trusted_bundle(),
        )
    )


def trusted_bundle() -> str:
    """Return the PEM of the authorities that webhooks should trust; "" when clusters trust the address anyway."""
    return certificates.bundle(Path(settings.ADMISSION_FOLDER)) if settings.ADMISSION_PORT else ""


@dataclass(frozen=True, slots=True)
class TrustedBundle:
    """What the webhooks of a cluster should trust, and whether they do, as far as all its live agents say."""

    bundle: str  # PEM; "" when clusters trust the address anyway
    sha256: str  # what an agent reports when the webhooks have it
    confirmed: bool
    confirmed_at: datetime | None  # since when
    is_reported: bool  # an agent says which certificates the webhooks trust, these or others


def bundle_for(cluster: Cluster) -> TrustedBundle:
    """Return what the webhooks of a cluster should trust. Agents read it here, and not in answers to their reports.

    Those answers are kept for a day and given again to the same report: an old one would bring an old bundle back.
    """
    bundle = trusted_bundle()
    sha256 = certificates.sha256_of(bundle) if bundle else ""
    said = bundles_said([cluster.pk]).get(cluster.pk)
    is_confirmed = bool(bundle) and said is not None and said.is_all(sha256)
    return TrustedBundle(
        bundle, sha256, is_confirmed, said.since if said is not None and is_confirmed else None,
        said is not None and said.is_any,
    )  # fmt: skip


def why_not_review(actor: User, debt: AdmissionDebt) -> Reason | None:
    """Return why `actor` cannot review a break-glass: somebody else than who broke it does, once."""
    if debt.reviewed_at is not None:
        return Reason("This break-glass was already reviewed.", Conflict)
    if not actor.is_person:
        return Reason("Only people can review break-glass.")
    if _names_of(*names_of(actor)) & _names_of(debt.user_name, *debt.user_names):
        return Reason("You broke the glass yourself. Another person must review it.")
    if uncounted := why_not_counted(actor, []) or why_token_not_counted():
        return Reason(f"Your review would not count: {uncounted}")
    decision = may(actor, Verb.PROMOTION_APPROVE, team=debt.cluster.team)
    return None if decision else Reason(decision.reason)


def _names_of(*names: str) -> set[str]:
    """Return names in lower case, also without what an API server puts before them, such as `oidc:` or `issuer#`."""
    whole = {name.strip().casefold() for name in names}
    return {part for name in whole for part in (name, name.rpartition(":")[2], name.rpartition("#")[2])} - {""}


@transaction.atomic
def review_debt(cluster: Cluster, debt_id: int, *, actor: User, outcome: str, comment: str) -> AdmissionDebt:
    """Say whether a break-glass in a cluster was justified. Raises NotFound, NotPermitted, Malformed, Conflict."""
    rows = AdmissionDebt.objects.select_for_update(of=("self",)).select_related("cluster__team")
    debt = rows.filter(cluster=cluster, pk=debt_id).first()
    if debt is None:
        raise NotFound("Break-glass not found, or you don't have access.")
    refuse_if(why_not_review(actor, debt))
    if outcome not in AdmissionDebt.Outcome.values or not comment.strip() or len(comment) > COMMENT_MAX:
        raise Malformed("Choose justified or unjustified, and enter what you found.")
    debt.outcome, debt.comment = outcome, comment.strip()
    debt.reviewed_by, debt.reviewed_at = actor, clock.now()
    debt.save(update_fields=["outcome", "comment", "reviewed_by", "reviewed_at"])
    AdmissionEpoch.objects.create()  # what it opened ends, or stays open
    details = AdmissionDebtReviewed(slug=cluster.slug, workload=debt.workload[:300], outcome=outcome)
    audit.record(
        Action.ADMISSION_DEBT_REVIEWED, actor=actor, subject=cluster, team=cluster.team, reason=debt.comment,
        details=details,
    )  # fmt: skip
    return debt
