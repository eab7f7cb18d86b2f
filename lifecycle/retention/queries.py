"""Which rules count, the facts about each digest that `policy.retention` judges, and which plans a user can see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from django.db.models import F, Max, Q, QuerySet, Sum, Window
from django.db.models.functions import RowNumber

from accounts.models import Team, User
from lifecycle.admission.models import AdmissionDebt
from lifecycle.authority.queries import repositories_visible_to, teams_visible_to
from lifecycle.clusters.models import Cluster
from lifecycle.core import clock
from lifecycle.core.patterns import matches
from lifecycle.core.types import subject_of_tag
from lifecycle.environments.models import Occupancy, Slot
from lifecycle.inventory.constants import SILENT_AFTER
from lifecycle.inventory.models import Reporter, RunningImage
from lifecycle.lineage.models import Derivation
from lifecycle.pentests.models import PentestFinding
from lifecycle.policy.retention import DigestFacts, Key, Rules, Why
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine.queries import covers_of
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.registry.models import Image, IndexEntry, Layer, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.retention.constants import ROLLBACKS, SEEN
from lifecycle.retention.models import RetentionEntry, RetentionPlan, RetentionRules

_LIVE_WAVES: Final = (RebuildWave.State.PLANNED, RebuildWave.State.RUNNING)
_SETTLED: Final = (PentestFinding.State.FALSE_POSITIVE, PentestFinding.State.FIXED)

Protections = dict[int, list[Why]]


def rules_of(*, team: Team | None = None, repository: Repository | None = None) -> RetentionRules | None:
    """Return the rules of exactly this team or repository; None if nobody set any."""
    rows = RetentionRules.objects.select_related("changed_by")
    return rows.filter(repository=repository).first() if repository is not None else rows.filter(team=team).first()


def plans_visible_to(actor: User) -> QuerySet[RetentionPlan]:
    """Return the plans of repositories and teams that `actor` can see."""
    rows = RetentionPlan.objects.select_related(
        "team", "repository__environment", "created_by", "confirmed_by", "replaced_by"
    )
    repositories = repositories_visible_to(actor).values("pk")
    teams = teams_visible_to(actor).values("pk")
    return rows.filter(Q(repository__in=repositories) | Q(repository=None, team__in=teams))


def entries_of(plan: RetentionPlan, actor: User) -> QuerySet[RetentionEntry]:
    """Return the digests of a plan in repositories that `actor` can see; those to delete come first."""
    rows = RetentionEntry.objects.filter(plan=plan, repository__in=repositories_visible_to(actor).values("pk"))
    rows = rows.select_related("image", "repository__team").defer("image__manifest", "image__config")
    return rows.order_by("pk")  # a plan stores those to delete first


def repositories_of(plan: RetentionPlan) -> list[Repository]:
    """Return the repositories that a plan is about, in order of their id."""
    rows = Repository.objects.select_related("team", "registry", "environment").order_by("pk")
    return list(rows.filter(pk=plan.repository_id) if plan.repository_id else rows.filter(team=plan.team_id))


def facts_of(repositories: Collection[Repository], *, accept_unknown_runtime: bool) -> list[DigestFacts]:
    """Return the facts about all digests of these repositories, with a fixed number of queries."""
    by_pk = {row.pk: row for row in repositories}
    members = list(
        RepositoryImage.objects.filter(repository__in=by_pk, removed_at=None)
        .order_by("repository_id", "image_id")
        .values_list("repository_id", "image_id", "image__digest", "image__subject_digest", "added_at")
    )
    ids = {image for _, image, *_ in members}
    digests = {digest: image for _, image, digest, *_ in members}
    present: dict[int, set[int]] = defaultdict(set)
    for repository, image, *_ in members:
        present[repository].add(image)
    tags: dict[Key, list[Tag]] = defaultdict(list)
    for tag in Tag.objects.filter(repository__in=by_pk, image__isnull=False).order_by("name"):
        tags[tag.repository_id, tag.image_id or 0].append(tag)
    indexes: dict[int, set[int]] = defaultdict(set)
    for index, child in IndexEntry.objects.filter(child__in=ids, index__in=ids).values_list("index_id", "child_id"):
        indexes[child].add(index)
    left = TagEvent.objects.filter(tag__repository__in=by_pk, old_image__in=ids).order_by()
    left_at = {
        (repository, image): at
        for repository, image, at in left.values_list("tag__repository", "old_image").annotate(Max("at"))
    }
    rules = _rules_for(by_pk.values())
    protections = _protections(ids, digests, {row.team_id for row in by_pk.values()})
    unknown = set() if accept_unknown_runtime else _unknown_runtime(by_pk.values())
    bases = _bases(ids, digests, indexes, protections)
    facts = []
    for repository, image, digest, subject, added_at in members:
        own = tags[repository, image]
        names = tuple(tag.name for tag in own)
        reasons = list(protections.get(image, ()))
        if repository in unknown:
            reasons.append(Why("unknown_runtime", "A cluster of this environment has never reported what it runs."))
        protected = next((name for name in names if _is_protected(by_pk[repository], name)), None)
        if protected is not None:
            reasons.append(Why("protected_tag", f"Tag {protected} is protected."))
        named = {digests[text] for text in _subjects(subject, names) if text in digests}
        facts.append(DigestFacts(
            repository=repository, image=image, digest=digest, tags=names, rules=rules[repository],
            pushed_at=max([added_at, *(tag.updated_at for tag in own)]),
            untagged_since=None if own else max(added_at, left_at.get((repository, image), added_at)),
            protections=tuple(reasons), indexes=frozenset(indexes[image] & present[repository]),
            subjects=frozenset((named & present[repository]) - {image}), bases=frozenset(bases[image] - {image}),
        ))  # fmt: skip
    return facts


def _is_protected(repository: Repository, tag: str) -> bool:
    return any(matches(pattern, tag) for pattern in repository.protected_tags)


def _subjects(subject: str, tags: Iterable[str]) -> list[str]:
    """Return the digests that an image refers to: by its manifest, or by its tags as cosign makes them."""
    return [text for text in (subject, *(subject_of_tag(tag) for tag in tags)) if text]


def _rules_for(repositories: Iterable[Repository]) -> dict[int, Rules | None]:
    rows = list(repositories)
    found = RetentionRules.objects.filter(Q(repository__in=rows) | Q(team__in={row.team_id for row in rows}))
    own = {rule.repository_id: rule for rule in found if rule.repository_id}
    teams = {rule.team_id: rule for rule in found if rule.team_id}
    chosen = {row.pk: own.get(row.pk) or teams.get(row.team_id) for row in rows}
    return {
        pk: Rules(rule.keep_last, rule.keep_days, tuple(rule.tags), rule.untagged_days) if rule else None
        for pk, rule in chosen.items()
    }


def _protections(ids: Collection[int], digests: Mapping[str, int], teams: Collection[int]) -> Protections:
    """Return {image id: why it is kept, whatever the rules say}. Places of other teams are not named."""
    found: Protections = defaultdict(list)

    def keep(image: int, code: str, text: str) -> None:
        found[image].append(Why(code, text))

    for image, slug, team in Slot.objects.filter(image__in=ids).values_list(
        "image_id", "environment__slug", "environment__team_id"
    ):
        keep(image, "promoted", f"Deployed in {slug}." if team in teams else "Another team has it deployed.")
    live = PromotionRequest.objects.filter(image__in=ids, state__in=PromotionRequest.NEXT)
    for image, number, team in live.values_list("image_id", "pk", "repository__team_id"):
        keep(
            image,
            "requested",
            f"PR-{number} is not finished." if team in teams else "A promotion of it is not finished.",
        )
    for job in RebuildJob.objects.filter(Q(old_image__in=ids) | Q(new_image__in=ids), wave__state__in=_LIVE_WAVES):
        for pk in {job.old_image_id, job.new_image_id} & set(ids):
            keep(pk or 0, "requested", "A rebuild with it is not finished.")
    for image, slug, team in _rollbacks(ids):
        where = f" in {slug}" if team in teams else ""
        keep(image, "rollback", f"One of the last {ROLLBACKS} images{where}, for a rollback.")
    _add_running(found, ids, digests, teams)
    for image, covers in covers_of(ids).items():
        keep(image, "quarantined", covers[0].words)
    for image in (
        PentestFinding.objects.filter(image__in=ids).exclude(state__in=_SETTLED).values_list("image_id", flat=True)
    ):
        keep(image, "evidence", "It has open findings of pen tests.")
    for used in AdmissionDebt.objects.filter(reviewed_at=None, digests__overlap=list(digests)).values_list(
        "digests", flat=True
    ):
        for digest in set(used) & set(digests):
            keep(digests[digest], "evidence", "A use of break-glass with it waits for a review.")
    return found


def _rollbacks(ids: Collection[int]) -> list[tuple[int, str, int]]:
    """Return (image id, environment, its team) of the last images of each slot."""
    slots = Occupancy.objects.filter(image__in=ids).values("slot")
    newest = [F("last").desc(), F("image_id").desc()]
    last = (
        Occupancy.objects.filter(slot__in=slots)
        .values("slot_id", "image_id", "slot__environment__slug", "slot__environment__team_id")
        .annotate(last=Max("started_at"))
        .annotate(rank=Window(RowNumber(), partition_by=[F("slot_id")], order_by=newest))
        .filter(rank__lte=ROLLBACKS)
        .order_by("slot_id")
    )
    wanted = set(ids)
    return [
        (row["image_id"], row["slot__environment__slug"], row["slot__environment__team_id"])
        for row in last
        if row["image_id"] in wanted
    ]


def _add_running(found: Protections, ids: Collection[int], digests: Mapping[str, int], teams: Collection[int]) -> None:
    """Add what runs, what ran a short time ago, and what a cluster ran that is silent now.

    An index counts if one of its platforms runs: the next start pulls by its tag.
    """
    now = clock.now()
    parents: dict[int, set[int]] = defaultdict(set)
    for index, child in IndexEntry.objects.filter(index__in=ids).values_list("index_id", "child_id"):
        parents[child].add(index)
    silent = set(
        Reporter.objects.filter(is_import=False, seen_at__lt=now - SILENT_AFTER).values_list("cluster_id", flat=True)
    )
    about = {*ids, *parents}
    rows = RunningImage.objects.filter(Q(image__in=about) | Q(platform__in=about) | Q(digest__in=list(digests)))
    rows = rows.filter(Q(until=None) | Q(until__gte=now - SEEN) | Q(cluster__in=silent)).order_by("pk")
    wanted = set(ids)
    for row in rows.select_related("cluster"):
        where = f"cluster {row.cluster.slug}" if row.cluster.team_id in teams else "a cluster"
        why = [Why("running", f"It runs in {where}.")] if row.until is None else []
        if row.until is not None and row.until >= now - SEEN:
            why.append(Why("seen", f"It ran in {where} in the last {SEEN.days} days."))
        if row.cluster_id in silent:
            why.append(Why("silent_cluster", f"It was seen in {where}, which does not report now."))
        hit = {row.image_id, row.platform_id, digests.get(row.digest)} - {None}
        hit |= {index for pk in tuple(hit) for index in parents[pk or 0]}
        for pk in hit & wanted:
            found[pk or 0].extend(why)


def _unknown_runtime(repositories: Iterable[Repository]) -> set[int]:
    """Return the promotion targets whose environment has a cluster that never reported."""
    targets = [row for row in repositories if row.environment_id is not None]
    if not targets:
        return set()
    never = Cluster.objects.filter(reporters=None, ended_at=None)
    bound = set(never.exclude(bindings=None).values_list("bindings__environment", flat=True))
    teams = set(never.filter(bindings=None).values_list("team", flat=True))
    return {row.pk for row in targets if row.environment_id in bound or row.team_id in teams}


def _bases(
    ids: Collection[int], digests: Mapping[str, int], indexes: Mapping[int, set[int]], protections: Protections
) -> dict[int, set[int]]:
    """Return {image id: what it is built on} of these images; bases of other present images become protected.

    A base is kept with the indexes that have it, because builds name those.
    """
    present = Q(derived__repository_images__removed_at=None, derived__repository_images__isnull=False)
    edges = set(Derivation.objects.filter(present, base__in=ids).values_list("derived_id", "base_id"))
    declared = Image.objects.filter(
        base_digest__in=list(digests), repository_images__removed_at=None, repository_images__isnull=False
    ).exclude(base_digest="")
    edges |= {(pk, digests[digest]) for pk, digest in declared.values_list("pk", "base_digest")}
    bases: dict[int, set[int]] = defaultdict(set)
    inside = set(ids)
    for derived, base in edges:
        for pk in {base, *indexes[base]}:
            if derived in inside:
                bases[derived].add(pk)
            else:
                protections[pk].append(Why("base_of_kept", "An image in another repository is built on it."))
    return bases


def blobs_of(ids: Collection[int]) -> dict[int, dict[str, int]]:
    """Return {image id: {digest of each of its blobs: bytes}}; an index has none of its own."""
    found: dict[int, dict[str, int]] = {pk: {} for pk in ids}
    for image, digest, size in (
        Layer.objects.filter(image__in=ids).exclude(digest="").values_list("image_id", "digest", "size_bytes")
    ):
        found[image][digest] = size
    rows = Image.objects.filter(pk__in=ids).exclude(kind=Image.Kind.INDEX).exclude(config_digest="")
    totals = rows.annotate(layered=Sum("layers__size_bytes")).values_list(
        "pk", "config_digest", "size_bytes", "layered"
    )
    for pk, config, size, layered in totals:
        # An artifact has no layer rows: its own files then count with its configuration.
        found[pk][config if layered else f"{config}+{pk}"] = max(size - (layered or 0), 0)
    return found


def blobs_in_use(blobs: Collection[str], registries: Collection[int], deleted: Collection[Key]) -> frozenset[str]:
    """Return those of `blobs` that images of these registries have, besides the deleted (repository, image) pairs."""
    gone: dict[int, int] = defaultdict(int)
    for _, image in deleted:
        gone[image] += 1
    layers = Layer.objects.filter(digest__in=list(blobs)).values_list("image_id", "digest")
    users: dict[int, set[str]] = defaultdict(set)
    for image, digest in layers:
        users[image].add(digest)
    for image, digest in Image.objects.filter(config_digest__in=list(blobs)).values_list("pk", "config_digest"):
        users[image].add(digest)
    places: dict[int, int] = defaultdict(int)
    present = RepositoryImage.objects.filter(
        image__in=users, removed_at=None, repository__registry__in=registries
    ).values_list("image_id", flat=True)
    for image in present:
        places[image] += 1
    return frozenset(
        digest for image, digests in users.items() if places[image] > gone.get(image, 0) for digest in digests
    )
