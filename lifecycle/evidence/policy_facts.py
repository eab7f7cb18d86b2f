"""The facts that the rules of policies judge, for one image or thousands, with a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection

from lifecycle.advisories.exploits import ExploitFeeds, exploit_feeds, exploit_sql
from lifecycle.core import clock
from lifecycle.core.providers import Question
from lifecycle.core.severities import RANKS, SEVERITIES, worse
from lifecycle.environments.models import Environment
from lifecycle.evidence.contents import ImageContents, contents_of
from lifecycle.evidence.due import exposures_of
from lifecycle.evidence.findings import matching_images
from lifecycle.evidence.isolation import image_config_of
from lifecycle.evidence.judgement import judgement_of
from lifecycle.evidence.open_findings import IN_FORCE_SQL, LIVE_SQL, PREFERENCE_SQL
from lifecycle.evidence.types import full_name
from lifecycle.pentests.queries import Counting, counting_findings, pairs_tested
from lifecycle.policies.asking import facts_of_checks
from lifecycle.policies.due_dates import due_dates
from lifecycle.policy.due_dates import DueFact, DueRow, Exposure, due_at, lists_of
from lifecycle.policy.facts import (
    BaseState,
    ContentFacts,
    ExternalFact,
    FileFact,
    FindingFact,
    HeldFacts,
    ImageFacts,
    LicenceFacts,
    Need,
    PentestFact,
    PentestFacts,
    PlatformState,
    Stay,
)
from lifecycle.policy.types import BaseTrust, BaseTrustFacts, SignatureFacts
from lifecycle.quarantine.queries import covers_of
from lifecycle.quarantine.types import Cover
from lifecycle.registry.models import Image, MissingChild, Repository
from lifecycle.registry.platforms import PlatformTree, trees_of
from lifecycle.sbom.end_of_life import distribution_support
from lifecycle.sbom.models import ImageLicences
from lifecycle.trust.queries import base_trust, signature_facts

_SHORT: Final = 19  # characters of a digest on pages

Subject = tuple[Image, Repository, Environment | None]  # an image of a source repository, perhaps for an environment

_WORST: Final = (BaseTrust.UNTRUSTED, BaseTrust.UNKNOWN, BaseTrust.TRUSTED, BaseTrust.SOURCE)

# Each open finding of an inventory's packages. Images share inventories, so each inventory is read once.
_FINDINGS_WITH: Final = f"""
SELECT held.inventory_id, inside.package_id, found.vulnerability, p.type, p.namespace, p.name, found.severity,
       found.fixed_version,
       greatest(found.valid_from, p.first_seen_at){{columns}}
FROM (SELECT DISTINCT unnest(%(inventories)s::bigint[]) AS inventory_id) held
CROSS JOIN LATERAL (
    -- OFFSET 0 limits the planner to these inventories, as in evidence.risk.
    SELECT package_id FROM lifecycle_inventorypackage ip WHERE ip.inventory_id = held.inventory_id OFFSET 0
) inside
JOIN lifecycle_packageversion p ON p.id = inside.package_id
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (a.vulnerability) a.vulnerability, a.cves, m.severity, m.fixed_version,
           min(m.valid_from) OVER (PARTITION BY a.vulnerability) AS valid_from
    FROM lifecycle_match m JOIN lifecycle_advisory a ON a.id = m.advisory_id
    WHERE m.package_id = inside.package_id AND {LIVE_SQL}
    ORDER BY a.vulnerability, {PREFERENCE_SQL}
) found
{{joins}}
"""  # noqa: S608 -- only constants of our modules are inserted
_FINDINGS: Final = _FINDINGS_WITH.format(columns="", joins="")
_EXPLOITED: Final = _FINDINGS_WITH.format(
    columns=", listed.added_on, listed.is_ransomware, scored.epss", joins=exploit_sql("found")
)


# The texts are made once: the query builder takes longer than PostgreSQL for each of them.
_PLATFORMS: Final = """
SELECT id, digest, os, architecture, variant, config, labels, created_at, first_seen_at, scanned_at, scan_problem,
       package_count, dropped_count, unjudged_count, unjudged_reasons, critical_count, high_count, medium_count,
       low_count, unknown_count, distro, manifest <> '' AS is_known
FROM lifecycle_image WHERE id = ANY(%s)
"""
_HELD: Final = """
SELECT slot.repository_id, slot.environment_id, image.id, image.digest, image.kind
FROM lifecycle_slot slot JOIN lifecycle_image image ON image.id = slot.image_id
WHERE slot.repository_id = ANY(%s) AND slot.environment_id = ANY(%s)
"""
_INVENTORIES: Final = f"""
SELECT DISTINCT image_id, inventory_id, EXISTS (
    SELECT FROM lifecycle_vexeffect effect WHERE effect.image_id = held.image_id AND effect.suppresses
      AND {IN_FORCE_SQL}
) FROM lifecycle_imageinventory held WHERE image_id = ANY(%s)
"""  # noqa: S608 -- only a constant is inserted
_SUPPRESSED: Final = f"""
SELECT image_id, package_id, vulnerability FROM lifecycle_vexeffect effect
WHERE image_id = ANY(%s) AND suppresses AND {IN_FORCE_SQL}
"""  # noqa: S608 -- likewise
_EDGES: Final = """
SELECT edge.derived_id, edge.base_id, base.digest,
       ARRAY(SELECT entry.index_id FROM lifecycle_indexentry entry WHERE entry.child_id = edge.base_id)
FROM lifecycle_derivation edge JOIN lifecycle_image base ON base.id = edge.base_id
WHERE edge.derived_id = ANY(%s)
"""
# Of source repositories only: what tags of environments point to is no news about a base.
_TAGS: Final = """
SELECT tag.image_id, tag.id FROM lifecycle_tag tag JOIN lifecycle_repository place ON place.id = tag.repository_id
WHERE tag.image_id = ANY(%s) AND place.environment_id IS NULL
"""
_MOVES: Final = """
SELECT event.old_image_id, event.tag_id, event.at
FROM lifecycle_tagevent event
JOIN lifecycle_tag tag ON tag.id = event.tag_id
JOIN lifecycle_repository place ON place.id = tag.repository_id
WHERE event.old_image_id = ANY(%s) AND event.new_image_id IS NOT NULL AND tag.image_id IS NOT NULL
  AND place.environment_id IS NULL
ORDER BY event.id DESC
"""


past_stays: Question[[Collection[tuple[int, int]]], Mapping[tuple[int, int], Sequence[Stay]]] = Question(
    "When did environments hold these images of these repositories? {(image id, repository id): stays}"
)


class _Held(NamedTuple):
    """The image that an environment holds."""

    pk: int
    digest: str
    kind: str


@dataclass(slots=True)
class _Read:
    """What was read for a group of subjects, by id."""

    now: datetime
    trees: Mapping[int, PlatformTree]
    platforms: Mapping[int, Image]
    missing: Mapping[int, list[str]]
    waiting: Collection[int]  # platform manifests whose packages are not all compared with the advisories yet
    findings: Mapping[int, Sequence[FindingFact]] = field(default_factory=dict)
    bases: Mapping[int, Sequence[BaseState]] = field(default_factory=dict)
    held: Mapping[tuple[int, int], _Held] = field(default_factory=dict)
    held_trees: Mapping[int, PlatformTree] = field(default_factory=dict)
    held_keys: dict[int, frozenset[tuple[str, str]] | None] = field(default_factory=dict)  # (advisory, package)
    stays: Mapping[tuple[int, int], Sequence[Stay]] = field(default_factory=dict)
    # By (team id, image id): each team has its own trusted sources.
    signatures: Mapping[tuple[int, int], SignatureFacts] = field(default_factory=dict)
    base_trust: Mapping[tuple[int, int], BaseTrustFacts] = field(default_factory=dict)
    contents: Mapping[int, ImageContents] = field(default_factory=dict)  # by platform manifest
    licences: Mapping[int, ImageLicences] = field(default_factory=dict)  # by platform manifest
    exploit_feeds: ExploitFeeds = field(default_factory=ExploitFeeds)
    external: Mapping[tuple[int, int], Mapping[str, ExternalFact]] = field(default_factory=dict)
    covers: Mapping[int, Sequence[Cover]] | None = None  # by image; None: not read
    due: tuple[DueRow, ...] | None = None  # the table of due dates; None: not read
    exposures: Mapping[int, Exposure] = field(default_factory=dict)  # by platform manifest
    with_images: bool = False  # whether isolation checks are asked
    # By (image id, repository id); None: not read
    pentests: Mapping[tuple[int, int], Sequence[Counting]] | None = None
    tested: Collection[tuple[int, int]] = ()


def facts_of_images(subjects: Sequence[Subject], needs: Collection[Need]) -> list[ImageFacts]:
    """Return the facts of each subject, in order. Facts that `needs` leaves out look unknown."""
    images = list({image.pk: image for image, _, _ in subjects}.values())
    held = _held(subjects) if Need.HELD in needs else {}
    trees = trees_of([*images, *held.values()])
    below = {pk for image in images for _, pk in trees[image.pk].manifests}
    read = _Read(
        now=clock.now(),
        trees=trees,
        platforms={row.pk: row for row in Image.objects.raw(_PLATFORMS, [list(below)])} if below else {},
        missing=_missing(trees),
        waiting=matching_images(below),
        held=held,
        with_images=Need.ISOLATION in needs,
    )
    if Need.EXPLOITS in needs:
        read.exploit_feeds = exploit_feeds()
    if Need.FINDINGS in needs or Need.HELD in needs:
        all_platforms = below | {pk for i in held.values() for _, pk in trees[i.pk].manifests}
        read.findings = findings_of_platforms(
            all_platforms, exploits=Need.EXPLOITS in needs or Need.DUE_DATES in needs
        )  # fmt: skip
        read.held_trees = {image.pk: trees[image.pk] for image in held.values()}
        others = {pk for tree in read.held_trees.values() for _, pk in tree.manifests} - read.platforms.keys()
        rows = Image.objects.filter(pk__in=others).only("pk", "scanned_at")
        read.platforms = {**read.platforms, **{row.pk: row for row in rows}}
    if Need.DUE_DATES in needs:
        read.due, read.exposures = due_dates().rows, exposures_of(below)
    if Need.BASES in needs:
        read.bases = _bases(below)
    if Need.STAYS in needs:
        read.stays = past_stays.ask({(image.pk, repository.pk) for image, repository, _ in subjects})
    if Need.SIGNATURES in needs:
        read.signatures = _signatures(subjects)
    if Need.BASE_TRUST in needs:
        read.base_trust = _base_trust(subjects, trees)
    if Need.CONTENTS in needs:
        read.contents = contents_of(below)
    if Need.LICENCES in needs:
        read.licences = {row.pk: row for row in ImageLicences.objects.filter(pk__in=below)}
    if Need.EXTERNAL in needs:
        teams = {repository.pk: repository.team_id for _, repository, _ in subjects}
        read.external = facts_of_checks({(image.pk, repository.pk) for image, repository, _ in subjects}, teams)
    if Need.PENTESTS in needs:
        pairs = {(image.pk, repository.pk) for image, repository, _ in subjects}
        read.pentests, read.tested = counting_findings(pairs), pairs_tested(pairs)
    if Need.QUARANTINES in needs:
        read.covers = covers_of([image.pk for image in images])
    return [_facts(read, subject) for subject in subjects]


def _facts(read: _Read, subject: Subject) -> ImageFacts:
    image, repository, environment = subject
    tree = read.trees[image.pk]
    platforms = tuple(_platform(read, name, pk) for name, pk in tree.manifests)
    missing = [*read.missing.get(image.pk, ()), *(["manifests nested too deeply"] if tree.is_cut else [])]
    return ImageFacts(
        image.digest,
        read.now,
        environment=environment.slug if environment else "",
        repository=repository.name,
        artifact=image.noun if image.kind == Image.Kind.ARTIFACT else "",
        platforms=platforms,
        missing_platforms=tuple(missing),
        findings=_dated(read, tree, environment, _findings(read, tree)),
        held=_held_facts(read, repository, environment),
        bases=tuple(dict.fromkeys(base for _, pk in tree.manifests for base in read.bases.get(pk, ()))),
        stays=tuple(read.stays.get((image.pk, repository.pk), ())),
        signatures=read.signatures.get((repository.team_id, image.pk)),
        base_trust=read.base_trust.get((repository.team_id, image.pk)),
        contents=_contents(read, tree),
        licences=_licences(read, tree),
        kev_read_at=read.exploit_feeds.kev_known_at,
        epss_scored_at=read.exploit_feeds.epss_scored_at,
        due_lists=None if read.due is None else lists_of(read.due),
        external=read.external.get((image.pk, repository.pk)),
        pentests=_pentests(read, (image.pk, repository.pk)),
        quarantines=None if read.covers is None else tuple(item.words for item in read.covers.get(image.pk, ())),
    )


def _pentests(read: _Read, pair: tuple[int, int]) -> PentestFacts | None:
    if read.pentests is None:
        return None
    found = sorted(read.pentests.get(pair, ()), key=lambda one: (RANKS[one.severity], one.id))
    facts = tuple(PentestFact(one.name, one.severity, one.relation) for one in found)
    return PentestFacts(facts, pair in read.tested)


def _licences(read: _Read, tree: PlatformTree) -> LicenceFacts | None:
    """Return the licences of all platforms; None while those of one are unknown, or when nothing was read."""
    known = [read.licences.get(pk) for _, pk in tree.manifests]
    rows = [row for row in known if row is not None]
    if not rows or len(rows) < len(known) or tree.is_cut:
        return None
    packages: dict[str, set[str]] = {}
    for row in rows:
        for name, names in row.licences.items():
            packages.setdefault(name, set()).update(names)
    return LicenceFacts(packages, max(row.undeclared_count for row in rows))


def _contents(read: _Read, tree: PlatformTree) -> ContentFacts | None:
    """Return what the files of all platforms have; None while one platform is not checked, or when nothing was read.

    What was found counts also then, so an unchecked platform hides no malware of another one.
    """
    known = [read.contents[pk] for _, pk in tree.manifests if pk in read.contents]
    if not known or not any(item.is_checked for item in known):
        return None
    found = dict.fromkeys(FileFact(item.kind, f"/{item.path}", item.detail) for one in known for item in one.found)
    states = {item.malware for item in known}
    problems = [item.problem for item in known if item.problem]
    if tree.is_cut:
        problems.append("The manifests are nested too deeply.")
    return ContentFacts(
        tuple(found),
        problem=" ".join(dict.fromkeys(problems)),
        malware=next((state for state in ("found", "unknown", "off") if state in states), "clean"),
        malware_problem=" ".join(dict.fromkeys(item.malware_problem for item in known if item.malware_problem)),
        cut=frozenset().union(*(item.cut for item in known)),
    )


def _platform(read: _Read, name: str, pk: int) -> PlatformState:
    row = read.platforms[pk]
    config = row.config.get("config") if isinstance(row.config, dict) else None
    support = distribution_support(row.distro)
    user = None
    if row.config:
        user = str(config.get("User") or "") if isinstance(config, dict) else ""
    return PlatformState(
        row.digest,
        name or row.platform,
        is_known=row.is_known,  # type: ignore[attr-defined]  # annotated in facts_of_images
        created_at=clock.stated(row.created_at),
        first_seen_at=row.first_seen_at,
        user=user,
        image=image_config_of(row.config, None) if read.with_images else None,
        labels={str(key): str(value) for key, value in (row.labels or {}).items()},
        sbom_at=row.scanned_at,
        scan_problem=row.scan_problem if row.scanned_at is None else "",
        unjudged=judgement_of(row).why if row.scanned_at is not None else "",
        is_matched=pk not in read.waiting,
        distro=row.distro if row.scanned_at is not None else None,
        supported_until=support.ends_on if support is not None else None,
    )


def _findings(read: _Read, tree: PlatformTree) -> tuple[FindingFact, ...] | None:
    """Return the findings of all platforms, each (advisory, package) once; None while one platform is not scanned."""
    ids = [pk for _, pk in tree.manifests]
    if not ids or tree.is_cut or any(read.platforms[pk].scanned_at is None for pk in ids):
        return None
    if len(ids) == 1:
        return tuple(read.findings.get(ids[0], ()))
    return tuple(_each_once(found for pk in ids for found in read.findings.get(pk, ())))


def _dated(
    read: _Read, tree: PlatformTree, environment: Environment | None, findings: tuple[FindingFact, ...] | None
) -> tuple[FindingFact, ...] | None:
    """Return the findings with their due dates, where the image runs now and where it is asked for."""
    if read.due is None or findings is None:
        return findings
    now = [read.exposures[pk] for _, pk in tree.manifests if pk in read.exposures]
    exposure = Exposure(
        any(each.production for each in now) or (environment is not None and environment.is_production),
        any(each.internet for each in now) or (environment is not None and environment.is_internet_facing),
    )
    return tuple(
        replace(
            found,
            due_at=due_at(
                read.due,
                DueFact(
                    found.severity, found.first_seen, found.fixed_version, found.exploited_on, found.epss, exposure
                ),
            ),
        )
        for found in findings
    )  # fmt: skip


def _held_facts(read: _Read, repository: Repository, environment: Environment | None) -> HeldFacts | None:
    image = read.held.get((repository.pk, environment.pk)) if environment else None
    if image is None:
        return None
    if image.pk not in read.held_keys:
        found = _findings(read, read.held_trees[image.pk])
        keys = None if found is None else frozenset((fact.advisory, fact.package) for fact in found)
        read.held_keys[image.pk] = keys
    return HeldFacts(image.digest, read.held_keys[image.pk])


def _held(subjects: Iterable[Subject]) -> dict[tuple[int, int], _Held]:
    """Return what environments hold now, by (repository id, environment id)."""
    pairs = {(repository.pk, environment.pk) for _, repository, environment in subjects if environment}
    if not pairs:
        return {}
    rows = _rows(_HELD, [list({pk for pk, _ in pairs}), list({pk for _, pk in pairs})])
    return {(row[0], row[1]): _Held(*row[2:]) for row in rows if (row[0], row[1]) in pairs}


def _rows(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def _by_team(subjects: Iterable[Subject]) -> dict[int, set[int]]:
    """Return {team id: ids of its images}."""
    found: dict[int, set[int]] = defaultdict(set)
    for image, repository, _ in subjects:
        found[repository.team_id].add(image.pk)
    return found


def _signatures(subjects: Iterable[Subject]) -> dict[tuple[int, int], SignatureFacts]:
    """Return who signed each image, or for a platform also its index, by the trusted sources of its team."""
    return {
        (team_id, pk): facts
        for team_id, ids in _by_team(subjects).items()
        for pk, facts in signature_facts(ids, team_id=team_id, through_indexes=True).items()
    }


def _base_trust(
    subjects: Iterable[Subject], trees: Mapping[int, PlatformTree]
) -> dict[tuple[int, int], BaseTrustFacts]:
    """Return the trust in the bases of each image. An index is as trusted as the worst of its platforms."""
    found = {}
    for team_id, ids in _by_team(subjects).items():
        platforms = {pk: [platform for _, platform in trees[pk].manifests] for pk in ids}
        trust = base_trust({each for below in platforms.values() for each in below}, team_id=team_id)
        for pk, below in platforms.items():
            if below:
                found[team_id, pk] = min((trust[each] for each in below), key=lambda facts: _WORST.index(facts.status))
    return found


def _missing(trees: Mapping[int, PlatformTree]) -> dict[int, list[str]]:
    """Return the missing platforms of each image, by its id."""
    indexes = {pk for tree in trees.values() for pk in tree.indexes}
    of_index: dict[int, list[str]] = defaultdict(list)
    if indexes:
        rows = MissingChild.objects.filter(index__in=indexes).order_by("index", "position")
        for index_id, platform, digest in rows.values_list("index_id", "platform", "digest"):
            of_index[index_id].append(platform or digest)
    return {
        image_id: [name for pk in sorted(tree.indexes) for name in of_index.get(pk, ())]
        for image_id, tree in trees.items()
        if tree.indexes
    }


def findings_of_platforms(ids: Collection[int], *, exploits: bool = False) -> dict[int, list[FindingFact]]:
    """Return the open findings of each of these platform manifests, each (advisory, package) once. Two queries, and one
    more when VEX statements suppress something. With `exploits`, also what KEV and EPSS say of them.
    """
    inventories: dict[int, list[int]] = defaultdict(list)
    decided: set[int] = set()
    for image_id, inventory_id, is_decided in _rows(_INVENTORIES, [list(ids)]):
        inventories[image_id].append(inventory_id)
        if is_decided:
            decided.add(image_id)
    suppressed = set(_rows(_SUPPRESSED, [list(decided)])) if decided else set()
    of_inventory: dict[int, list[tuple[int, FindingFact]]] = defaultdict(list)
    with connection.cursor() as cursor:
        wanted = sorted({pk for listed in inventories.values() for pk in listed})
        parameters: dict[str, list[Any]] = {"inventories": wanted, "severities": list(SEVERITIES)}
        cursor.execute(_EXPLOITED if exploits else _FINDINGS, parameters)
        for pk, package_id, advisory, kind, namespace, name, *rest in cursor.fetchall():
            of_inventory[pk].append((package_id, FindingFact(advisory, full_name(namespace, name), kind, *rest)))
    return {
        image_id: _each_once(
            fact
            for pk in listed
            for package_id, fact in of_inventory.get(pk, ())
            if not suppressed or (image_id, package_id, fact.advisory) not in suppressed
        )
        for image_id, listed in inventories.items()
    }


def _each_once(findings: Iterable[FindingFact]) -> list[FindingFact]:
    """Return each (advisory, package) once: the worst severity, any fix, and the first time."""
    found: dict[tuple[str, str], FindingFact] = {}
    for fact in findings:
        key = (fact.advisory, fact.package)
        other = found.setdefault(key, fact)
        if other is not fact:
            found[key] = FindingFact(
                fact.advisory,
                fact.package,
                fact.type,
                worse(fact.severity, other.severity),
                fact.fixed_version or other.fixed_version,
                min(fact.first_seen, other.first_seen),
                min(filter(None, (fact.exploited_on, other.exploited_on)), default=None),
                is_ransomware=fact.is_ransomware or other.is_ransomware,
                epss=max((one for one in (fact.epss, other.epss) if one is not None), default=None),
            )
    return list(found.values())


def _bases(ids: Collection[int]) -> dict[int, list[BaseState]]:
    """Return the direct bases of each platform manifest: by tags of source repositories, is each still the newest?"""
    edges = _rows(_EDGES, [list(ids)])
    if not edges:
        return {}
    # The base itself, and the indexes that hold it.
    carriers = {base_id: {base_id, *indexes} for _, base_id, _, indexes in edges}
    pointed = list({pk for found in carriers.values() for pk in found})
    current = {(image_id, tag_id) for image_id, tag_id in _rows(_TAGS, [pointed])}
    tags_now = {tag_id: image_id for image_id, tag_id in current}
    left: dict[int, list[tuple[int, datetime]]] = defaultdict(list)
    for old_id, tag_id, at in _rows(_MOVES, [pointed]):
        left[old_id].append((tag_id, at))
    states: dict[int, dict[str, Any]] = {}
    for base_id, found in carriers.items():
        # A tag that moved between indexes with the same manifest of this platform leaves the base where it was.
        since = [at for pk in found for tag_id, at in left.get(pk, ()) if tags_now.get(tag_id) not in found]
        has_tag = any(image_id in found for image_id, _ in current)
        states[base_id] = {"is_current": False if since else (True if has_tag else None),
                           "behind_since": min(since, default=None)}  # fmt: skip
    result: dict[int, list[BaseState]] = defaultdict(list)
    for derived_id, base_id, digest, _ in edges:
        result[derived_id].append(BaseState(digest, digest[:_SHORT], **states[base_id]))
    return result
