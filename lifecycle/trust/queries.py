"""Facts about signatures and bases, by the trusted sources of now. Rules, pages and the API read only these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet
from django.db.models.functions import Now

from accounts.models import Team, User
from lifecycle.authority.queries import teams_visible_to
from lifecycle.core.patterns import matches
from lifecycle.lineage.models import Derivation
from lifecycle.policy.types import BaseFact, BaseTrust, BaseTrustFacts, SignatureFact, SignatureFacts
from lifecycle.registry.models import Image, IndexEntry, Repository, RepositoryImage
from lifecycle.trust.models import Signature, TrustCheck, TrustedSigner, TrustedSource

_UNCHECKED = "The signatures of this image were not read yet."
_UNREAD = "The signatures in one of its repositories could not be read."  # unnamed: not every reader sees it
_NO_SOURCES = "No trusted source is set up for this team."


def live_sources(team_id: int | None = None) -> QuerySet[TrustedSource]:
    """Return the sources that count now: the site-wide ones, and with `team_id` those of that team."""
    rows = TrustedSource.objects.filter(retired_at=None, valid_from__lte=Now())
    scope = Q(is_site_wide=True)
    if team_id is not None:
        scope |= Q(pk__in=TrustedSource.teams.through.objects.filter(team_id=team_id).values("trustedsource_id"))
    return rows.filter(scope).order_by("name")


def sources_visible_to(actor: User) -> QuerySet[TrustedSource]:
    """Return the sources that `actor` can see, retired ones too: site-wide ones, and those of visible teams."""
    rows = TrustedSource.objects.prefetch_related("signers", "teams").select_related("created_by")
    if actor.is_active and actor.is_superuser:
        return rows
    of_teams = TrustedSource.teams.through.objects.filter(team__in=teams_visible_to(actor)).values("trustedsource_id")
    return rows.filter(Q(is_site_wide=True) | Q(pk__in=of_teams))


def signatures_of(image: Image) -> QuerySet[Signature]:
    """Return the stored signatures of an image and of the indexes that hold it, with their signers and sources."""
    indexes = IndexEntry.objects.filter(child=image).values("index")
    rows = Signature.objects.filter(Q(image=image) | Q(image__in=indexes))
    signers = TrustedSigner.objects.select_related("source").order_by("source__name", "id")
    return rows.select_related("image", "repository", "attestation").prefetch_related(
        Prefetch("signers", queryset=signers)
    ).order_by("predicate_type", "-signed_at", "id")  # fmt: skip


def signature_facts(
    image_ids: Collection[int], *, team_id: int | None = None, through_indexes: bool = False
) -> Mapping[int, SignatureFacts]:
    """Return {image id: who signed it}, by the sources of `team_id` and the site-wide ones; every id has an entry.

    With `through_indexes`, a signature on an index counts for its platforms too: the index names them by digest. Four
    queries for any number of images, six with `through_indexes`.
    """
    wanted = set(image_ids)
    sources = dict(live_sources(team_id).values_list("pk", "name"))
    holders: dict[int, set[int]] = {pk: {pk} for pk in wanted}
    if through_indexes:
        for child, index in IndexEntry.objects.filter(child__in=wanted).values_list("child_id", "index_id"):
            holders[child].add(index)
    ids = set().union(*holders.values()) if holders else set()
    rows: dict[int, list[Signature]] = defaultdict(list)
    signers = TrustedSigner.objects.filter(source__in=sources)
    for row in (
        Signature.objects.filter(image__in=ids)
        .select_related("image")
        .prefetch_related(Prefetch("signers", queryset=signers))
        .order_by("id")
        .defer("image__manifest", "image__config")
    ):
        rows[row.image_id].append(row)
    checks = {check.image_id: check for check in TrustCheck.objects.filter(image__in=ids)}
    own = _places_of(checks.values(), team_id)
    return {
        pk: _facts([row for holder in sorted(holders[pk]) for row in rows[holder]], checks.get(pk), sources, own)
        for pk in wanted
    }


def _places_of(checks: Iterable[TrustCheck], team_id: int | None) -> Collection[int]:
    """Return the repositories of a team (any without one) in which something could not be read; mostly no query."""
    ids = {entry["repository"] for check in checks for entry in check.unread}
    if not ids or team_id is None:
        return ids
    return set(Repository.objects.filter(pk__in=ids, team=team_id).values_list("pk", flat=True))


def problem_seen(check: TrustCheck | None, repositories: QuerySet[Repository]) -> str:
    """Return what of a check could not be read in one of `repositories`; "" if nothing, or only elsewhere."""
    if check is None or check.problem or not check.unread:
        return check.problem if check is not None else ""
    texts = {entry["repository"]: entry["text"] for entry in check.unread}
    rows = repositories.filter(pk__in=texts).order_by("name").values_list("pk", "name")
    return " ".join(f"{name}: {texts[pk]}" for pk, name in rows)


def _facts(
    rows: Iterable[Signature], check: TrustCheck | None, sources: Mapping[int, str], own: Collection[int]
) -> SignatureFacts:
    verified: dict[tuple[str, str, str], SignatureFact] = {}
    refused: list[str] = []
    unsigned = 0
    for row in rows:
        names = [sources[signer.source_id] for signer in row.signers.all()]
        if row.state == Signature.State.VERIFIED and names:
            for name in names:  # the same signature can be in several repositories
                verified.setdefault((row.object_digest, row.image.digest, name), _fact(row, name))
        elif row.state == Signature.State.UNSIGNED:
            unsigned += 1
        else:
            refused.append(row.reason or "Its signer is no longer trusted.")
    problem = _UNCHECKED if check is None or check.checked_at is None else check.problem
    if not problem and check is not None and any(entry["repository"] in own for entry in check.unread):
        problem = _UNREAD
    return SignatureFacts(not problem, tuple(verified.values()), tuple(dict.fromkeys(refused)), unsigned, problem)


def _fact(row: Signature, source: str) -> SignatureFact:
    return SignatureFact(
        object_digest=row.object_digest,
        subject_digest=row.image.digest,
        format=row.format,
        source=source,
        key_fingerprint=row.key_fingerprint,
        identity=row.identity,
        issuer=row.issuer,
        predicate_type=row.predicate_type,
        builder_id=row.builder_id,
        source_uri=row.source_uri,
        signed_at=row.signed_at,
    )


@dataclass(frozen=True, slots=True)
class _Ground:
    """What is needed to say whether an image is from a trusted source."""

    sources: tuple[TrustedSource, ...]
    places: Mapping[int, tuple[str, ...]]  # image id: "host/repository" of every place that has or had it
    signed_by: Mapping[int, frozenset[str]]  # image id: names of the sources whose signers signed it

    def source_of(self, image_id: int) -> str:
        """Return the name of the first source that covers the image; "" when none does."""
        for source in self.sources:
            if any(
                matches(pattern, place) for pattern in source.places for place in self.places.get(image_id, ())
            ) and (not source.needs_signature or source.name in self.signed_by.get(image_id, frozenset())):
                return source.name
        return ""

    def why_not(self, image_id: int) -> str:
        """Return why no source covers the image, as a sentence."""
        places = self.places.get(image_id, ())
        for source in self.sources:
            if any(matches(pattern, place) for pattern in source.places for place in places):
                return f"It is in a place of {source.name}, but no signer of {source.name} has signed it."
        return f"No trusted source covers {places[0]}." if places else "Nobody knows where it comes from."


def base_trust(image_ids: Collection[int], *, team_id: int | None = None) -> Mapping[int, BaseTrustFacts]:
    """Return {image id: its direct bases and whether trusted sources cover them}; every id has an entry.

    A base's own bases are not asked for: who trusts a source trusts what it builds on. Nine queries for any number of
    images.
    """
    wanted = set(image_ids)
    edges: dict[int, list[int]] = defaultdict(list)
    for derived, base in (
        Derivation.objects.filter(derived__in=wanted).order_by("base__digest").values_list("derived_id", "base_id")
    ):
        edges[derived].append(base)
    ids = wanted.union(*edges.values())
    images = {row.pk: row for row in Image.objects.filter(pk__in=ids).only("digest", "base_name", "base_digest")}
    ground = _ground(ids, team_id)
    return {pk: _trust_of(images.get(pk), edges[pk], images, ground) for pk in wanted}


def _ground(ids: Collection[int], team_id: int | None) -> _Ground:
    sources = tuple(live_sources(team_id))
    places: dict[int, list[str]] = defaultdict(list)
    members = RepositoryImage.objects.filter(image__in=ids).select_related("repository__registry").order_by("id")
    for member in members:
        places[member.image_id].append(place_of(member.repository))
    facts = signature_facts(ids, team_id=team_id, through_indexes=True)
    signed_by = {pk: frozenset(fact.source for fact in each.verified) for pk, each in facts.items()}
    return _Ground(sources, {pk: tuple(dict.fromkeys(each)) for pk, each in places.items()}, signed_by)


def place_of(repository: Repository) -> str:
    """Return the place that patterns of sources match: `docker.io/library/debian`."""
    return f"{repository.registry.host}/{repository.name}"


def _trust_of(
    image: Image | None, base_ids: Iterable[int], images: Mapping[int, Image], ground: _Ground
) -> BaseTrustFacts:
    if image is None:
        return BaseTrustFacts(BaseTrust.UNKNOWN, reason="The image is not known.")
    if not ground.sources:
        return BaseTrustFacts(BaseTrust.UNKNOWN, reason=_NO_SOURCES)
    bases = tuple(_base_fact(images[pk], ground) for pk in base_ids if pk in images)
    untrusted = [base for base in bases if not base.is_trusted]
    if untrusted:
        named = untrusted[0].name or untrusted[0].digest[:19]
        return BaseTrustFacts(BaseTrust.UNTRUSTED, bases, f"The base {named} is not trusted. {untrusted[0].reason}")
    if bases or ground.source_of(image.pk):
        return BaseTrustFacts(BaseTrust.TRUSTED if bases else BaseTrust.SOURCE, bases)
    named = image.base_name or image.base_digest[:19]
    why = f"The declared base {named} was never seen." if named else "No base of this image is known."
    return BaseTrustFacts(BaseTrust.UNKNOWN, reason=why)


def _base_fact(base: Image, ground: _Ground) -> BaseFact:
    source = ground.source_of(base.pk)
    places = ground.places.get(base.pk, ())
    why = "" if source else ground.why_not(base.pk)
    return BaseFact(base.digest, places[0] if places else "", bool(source), source, why)


def untrusted_images(visible: QuerySet[Repository]) -> QuerySet[RepositoryImage, Any] | None:
    """Return the rows of images in the `visible` repositories that stand on an untrusted base; None without sources.

    Each team is judged by its own sources and the site-wide ones, as in `base_trust`.
    """
    sources = list(live_sources_of_all())
    if not sources:
        return None
    repositories = Repository.objects.select_related("registry").only("id", "name", "registry__endpoint")
    places = {row.pk: place_of(row) for row in repositories}
    trusted = Q()
    for source in sources:
        covered = [pk for pk, place in places.items() if any(matches(pattern, place) for pattern in source.places)]
        held = Exists(RepositoryImage.objects.filter(image=OuterRef("base"), repository__in=covered))
        condition = Q(held)
        if source.needs_signature:
            signers = [signer.pk for signer in source.signers.all()]
            signed = Signature.objects.filter(state=Signature.State.VERIFIED, signers__in=signers)
            indexes = IndexEntry.objects.filter(child=OuterRef(OuterRef("base"))).values("index")
            condition &= Q(Exists(signed.filter(image=OuterRef("base")))) | Q(Exists(signed.filter(image__in=indexes)))
        if not source.is_site_wide:
            condition &= Q(
                Exists(Team.objects.filter(pk=OuterRef(OuterRef("repository__team")), pk__in=_teams(source)))
            )
        trusted |= condition
    untrusted = Derivation.objects.filter(~trusted, derived=OuterRef("image"))
    return RepositoryImage.objects.filter(Exists(untrusted), repository__in=visible, removed_at=None)


def live_sources_of_all() -> QuerySet[TrustedSource]:
    """Return all sources that count now for some team, with their signers and teams."""
    rows = TrustedSource.objects.filter(retired_at=None, valid_from__lte=Now())
    return rows.prefetch_related("signers", "teams").order_by("name")


def teams_trusting(repositories: QuerySet[Repository]) -> dict[int, set[int | None]]:
    """Return {repository: the teams whose live sources name its place; None among them: all teams}.

    Only repositories with some. Three queries, and one when there is no source.
    """
    sources = [(row.places, {None} if row.is_site_wide else {team.pk for team in row.teams.all()})
               for row in live_sources_of_all().prefetch_related(None).prefetch_related("teams")]  # fmt: skip
    found: dict[int, set[int | None]] = defaultdict(set)
    for repository in repositories if sources else ():
        place = place_of(repository)
        for patterns, teams in sources:
            if any(matches(pattern, place) for pattern in patterns):
                found[repository.pk] |= teams
    return dict(found)


def _teams(source: TrustedSource) -> list[int]:
    return [team.pk for team in source.teams.all()]


def untrusted_count(visible: QuerySet[Repository]) -> int | None:
    """Return the number of images in the `visible` repositories on untrusted bases; None without sources."""
    rows = untrusted_images(visible)
    return None if rows is None else rows.values("image").distinct().count()
