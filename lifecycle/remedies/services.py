"""Find the remedies of repositories again: read everything in a few queries per batch, decide, and replace the rows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from django.db import connection
from django.db.models import Max

from lifecycle.advisories.exploits import Exploit, exploits_of, together
from lifecycle.advisories.models import Feed
from lifecycle.core import locks
from lifecycle.core.errors import Malformed
from lifecycle.core.severities import NONE, RANKS, SEVERITIES, UNKNOWN
from lifecycle.environments.models import Slot
from lifecycle.evidence.findings import fixed_by_new_base, matching_images
from lifecycle.evidence.judgement import judgement_of
from lifecycle.evidence.open_findings import LIVE_SQL, PREFERENCE_SQL, not_suppressed_sql
from lifecycle.evidence.types import full_name
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.policies.due_dates import due_dates
from lifecycle.policy.due_dates import DueFact, Exposure, due_at
from lifecycle.rebuild.graph import RepositoryNode, current_images
from lifecycle.registry.models import Image, IndexEntry, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.registry.platforms import entries_of_images
from lifecycle.remedies.models import Remedy, RemedyPass
from lifecycle.versions import compare

BATCH: Final = 200  # repositories
OVERLAP: Final = timedelta(minutes=2)  # a transaction that began before the last look can commit after it
_LOCK: Final = 0x72656D65  # two looks at once would replace the same rows

# Images in use whose findings, tags or bases changed: their own, or an image that a tag of their base points at now.
_CHANGED: Final = """
WITH changed AS MATERIALIZED (
    SELECT id FROM lifecycle_image WHERE risk_at >= %(since)s
    UNION SELECT new_image_id FROM lifecycle_tagevent WHERE at >= %(since)s AND new_image_id IS NOT NULL
), tops AS MATERIALIZED (
    SELECT id FROM changed
    UNION SELECT entry.index_id FROM lifecycle_indexentry entry JOIN changed ON changed.id = entry.child_id
), touched AS MATERIALIZED (
    SELECT tag.id, tag.repository_id FROM lifecycle_tag tag JOIN tops ON tops.id = tag.image_id
    UNION SELECT tag.id, tag.repository_id FROM lifecycle_tagevent event JOIN lifecycle_tag tag ON tag.id = event.tag_id
    WHERE event.at >= %(since)s
), line AS MATERIALIZED (
    SELECT event.old_image_id AS id FROM lifecycle_tagevent event JOIN touched ON touched.id = event.tag_id
    WHERE event.old_image_id IS NOT NULL
), below AS MATERIALIZED (
    SELECT id FROM line
    UNION SELECT entry.child_id FROM lifecycle_indexentry entry JOIN line ON line.id = entry.index_id
), derived AS MATERIALIZED (
    SELECT edge.derived_id AS id FROM lifecycle_derivation edge JOIN below ON below.id = edge.base_id
    UNION SELECT derived_id FROM lifecycle_derivation WHERE created_at >= %(since)s
), standing AS MATERIALIZED (
    SELECT id FROM derived
    UNION SELECT entry.index_id FROM lifecycle_indexentry entry JOIN derived ON derived.id = entry.child_id
)
SELECT repository_id FROM touched
UNION SELECT repository_id FROM lifecycle_slot WHERE since >= %(since)s
UNION SELECT tag.repository_id FROM lifecycle_tag tag JOIN standing ON standing.id = tag.image_id
UNION SELECT slot.repository_id FROM lifecycle_slot slot JOIN tops ON tops.id = slot.image_id
UNION SELECT slot.repository_id FROM lifecycle_slot slot JOIN standing ON standing.id = slot.image_id
"""

_FINDINGS: Final = f"""
WITH carried AS MATERIALIZED (
    SELECT image_id, inventory_id, min(layer_position) AS position
    FROM lifecycle_imageinventory WHERE image_id = ANY(%(ids)s) GROUP BY image_id, inventory_id
), held AS MATERIALIZED (
    SELECT shared.inventory_id, inside.package_id
    FROM (SELECT DISTINCT inventory_id FROM carried) shared
    CROSS JOIN LATERAL (
        SELECT package_id FROM lifecycle_inventorypackage ip WHERE ip.inventory_id = shared.inventory_id OFFSET 0
    ) inside
), found AS MATERIALIZED (
    SELECT DISTINCT ON (m.package_id, a.vulnerability)
           m.package_id, a.vulnerability, m.severity, m.fixed_version, a.cves,
           min(greatest(m.valid_from, p.first_seen_at)) OVER (PARTITION BY m.package_id, a.vulnerability) AS first_seen
    FROM (SELECT DISTINCT package_id FROM held) package
    JOIN lifecycle_match m ON m.package_id = package.package_id AND {LIVE_SQL}
    JOIN lifecycle_advisory a ON a.id = m.advisory_id
    JOIN lifecycle_packageversion p ON p.id = m.package_id
    ORDER BY m.package_id, a.vulnerability, {PREFERENCE_SQL}
)
SELECT carried.image_id, found.vulnerability, found.severity, found.fixed_version,
       package.type, package.namespace, package.name, package.scheme, found.cves, found.first_seen,
       min(carried.position)
FROM carried JOIN held USING (inventory_id) JOIN found USING (package_id)
JOIN lifecycle_packageversion package ON package.id = found.package_id
WHERE {not_suppressed_sql("carried.image_id", "found.package_id", "found.vulnerability")}
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""  # noqa: S608 -- only constants of our modules are inserted


@dataclass(frozen=True, slots=True)
class _Finding:
    vulnerability: str
    severity: str
    fixed_version: str
    type: str
    name: str
    scheme: str
    exploit: Exploit
    first_seen: datetime
    due_at: datetime | None
    position: int | None  # of its layer; None where the SBOM does not name it


@dataclass(frozen=True, slots=True)
class _Base:
    """The base of a platform manifest, and the image that a tag of its repository points at instead of it now."""

    image: Image
    repository_id: int
    tag: str
    new_top: int | None  # None: no newer image


@dataclass(slots=True)
class _Row:
    """One remedy of one repository while it is put together."""

    kind: str
    base: _Base | None = None
    type: str = ""
    name: str = ""
    fixed_version: str = ""
    scheme: str = ""
    closes: dict[tuple[str, str], str] = field(default_factory=dict)  # (vulnerability, package) -> severity
    exploits: dict[str, Exploit] = field(default_factory=dict)  # by vulnerability
    due_at: datetime | None = None
    times: dict[str, tuple[datetime, datetime | None]] = field(default_factory=dict)  # first seen and due, likewise

    def add(self, finding: _Finding) -> None:
        """Add a finding that this remedy closes; of several versions that fix it, the highest one counts."""
        pair = (finding.vulnerability, finding.name)
        self.closes[pair] = min(finding.severity, self.closes.get(pair, finding.severity), key=RANKS.__getitem__)
        self.exploits[finding.vulnerability] = finding.exploit
        seen, due = self.times.get(finding.vulnerability, (finding.first_seen, finding.due_at))
        both = [at for at in (due, finding.due_at) if at is not None]
        self.times[finding.vulnerability] = (min(seen, finding.first_seen), min(both, default=None))
        self.due_at = min((at for at in (self.due_at, finding.due_at) if at is not None), default=None)
        if self.kind == Remedy.Kind.UPGRADE:
            self.fixed_version = _higher(finding.scheme, self.fixed_version, finding.fixed_version)


def _higher(scheme: str, one: str, other: str) -> str:
    if not one:
        return other
    try:
        return one if compare(scheme, one, other) >= 0 else other
    except Malformed:  # a fix that its own scheme cannot read: any of the two, but always the same one
        return max(one, other)


def changed_since(moment: datetime) -> list[int]:
    """Return the ids of repositories whose remedies can be others since `moment`."""
    with connection.cursor() as cursor:
        cursor.execute(_CHANGED, {"since": moment - OVERLAP})
        return sorted(row[0] for row in cursor.fetchall())


def to_find(now: datetime) -> tuple[list[int], bool]:
    """Return (ids of the repositories to look at, whether these are all): all the first time, and once a day."""
    last = RemedyPass.objects.order_by("-pk").first()
    if last is None or _is_all_due(last, now):
        return list(Repository.objects.filter(source=None).order_by("pk").values_list("pk", flat=True)), True
    return changed_since(last.looked_at), False


def _is_all_due(last: RemedyPass, now: datetime) -> bool:
    """Return whether all repositories are to be looked at: once a day, and after what changes the order of all."""
    return (
        last.looked_at.date() != now.date()
        or last.exploits_read_at != exploits_read_at()
        or last.due_revision != due_dates().revision
    )


def is_due(now: datetime) -> bool:
    """Return whether something changed since the last look, or changed so shortly before it that it was not seen."""
    last = RemedyPass.objects.order_by("-pk").first()
    moments = (
        Image.objects.aggregate(at=Max("risk_at"))["at"],
        TagEvent.objects.aggregate(at=Max("at"))["at"],
        Derivation.objects.aggregate(at=Max("created_at"))["at"],
    )
    newest: datetime | None = max((moment for moment in moments if moment is not None), default=None)
    if newest is None:
        return False
    if last is None or _is_all_due(last, now):
        return True
    return newest > last.looked_at - OVERLAP


def exploits_read_at() -> datetime | None:
    """Return when a list of exploits was last read: it can change the order of all remedies. None without a list."""
    lists = Feed.objects.filter(kind__in=(Feed.Kind.KEV, Feed.Kind.EPSS), synced_at__isnull=False)
    found: datetime | None = lists.aggregate(at=Max("synced_at"))["at"]
    return found


def remember(now: datetime, exploits: datetime | None, *, is_complete: bool) -> None:
    """Store that all changes until `now` were looked at, with the list of exploits that was current then.

    Unless `is_complete`, they are looked at again next time.
    """
    if not is_complete:
        return
    RemedyPass.objects.all().delete()
    RemedyPass.objects.create(looked_at=now, exploits_read_at=exploits, due_revision=due_dates().revision)


def find(repository_ids: Collection[int]) -> bool:
    """Replace the remedies of these repositories; return whether that was possible for all. About 20 queries a batch.

    Runs in the caller's transaction. What is unknown is no remedy: an image that is not scanned has none, and while
    packages of an image or of its bases wait to be matched, its old rows stay: then the result is False.
    """
    locks.wait_for(_LOCK)
    current = current_images(repository_ids)
    older = older_images(repository_ids, current)
    nodes = [*current.values(), *older]
    manifests = {child.pk: child for node in nodes for child in node.platforms}
    bases = _bases_of(manifests.values())
    tops = entries_of_images(_images({base.new_top for found in bases.values() for base in found if base.new_top}))
    news = {(key, entry.child.platform): entry.child for key, entries in tops.items() for entry in entries}
    waiting = matching_images(
        [*manifests, *(base.image.pk for found in bases.values() for base in found), *(new.pk for new in news.values())]
    )
    findings = _findings(manifests, _exposures(nodes))
    fixed = _fixed(manifests, bases, news)
    scanned = [node for node in nodes if all(child.scanned_at for child in node.platforms)]
    unsettled = {node.key for node in scanned if not _is_settled(node, bases, waiting)}
    rows: list[Remedy] = []
    for node in scanned:
        if node.key in unsettled:
            continue
        better = _better_than(node, current.get(node.key), findings)
        decided = _decide(node, better, findings=findings, bases=bases, fixed=fixed)
        rows += [_stored(node, row) for row in decided]
    replaced = [key for key in repository_ids if key not in unsettled]
    Remedy.objects.filter(repository__in=replaced).delete()
    Remedy.objects.bulk_create(rows, batch_size=500)
    return not unsettled


def _is_settled(node: RepositoryNode, bases: Mapping[int, Sequence[_Base]], waiting: Collection[int]) -> bool:
    """Return whether no package of the image or of its bases waits to be matched."""
    return not any(child.pk in waiting for child in node.platforms) and not any(
        base.image.pk in waiting for child in node.platforms for base in bases.get(child.pk, ())
    )


@dataclass(frozen=True, slots=True)
class _Better:
    """The current image of a repository in which an environment runs an older one."""

    base: _Base  # the older image, and the current one instead of it
    findings: Mapping[str, Collection[str]]  # {platform: open vulnerabilities of the current image}


def _better_than(
    node: RepositoryNode, current: RepositoryNode | None, findings: Mapping[int, Sequence[_Finding]]
) -> _Better | None:
    """Return the current image if `node` is older and all is known of the current one."""
    if current is None or current is node or not all(_is_known(child) for child in current.platforms):
        return None
    known = {child.platform: {found.vulnerability for found in findings[child.pk]} for child in current.platforms}
    return _Better(_Base(node.image, node.key, current.tag, current.image.pk), known)


def _is_known(image: Image) -> bool:
    return image.scanned_at is not None and bool(judgement_of(image).package_count)


def _decide(
    node: RepositoryNode,
    newer: _Better | None,
    *,
    findings: Mapping[int, Sequence[_Finding]],
    bases: Mapping[int, Sequence[_Base]],
    fixed: Mapping[tuple[int, int], Collection[str]],
) -> Iterable[_Row]:
    """Yield the remedies of one image: each finding belongs to the nearest base whose newer image fixes it.

    What the current image does not have any more, an older one loses by promoting the current one.
    """
    rows: dict[tuple[object, ...], _Row] = {}
    for child in node.platforms:
        below = bases.get(child.pk, ())
        for finding in findings.get(child.pk, ()):
            package = (finding.type, finding.name)
            better = next((b for b in below if finding.vulnerability in fixed.get((child.pk, b.image.pk), ())), None)
            brought_by = [b for b in below if finding.position is not None and finding.position < b.image.layer_count]
            key: tuple[object, ...]
            if newer is not None and finding.vulnerability not in newer.findings.get(
                child.platform, {finding.vulnerability}
            ):
                row = rows.setdefault((Remedy.Kind.PROMOTE,), _Row(Remedy.Kind.PROMOTE, newer.base))
            elif better is not None:
                key = (Remedy.Kind.REBUILD, better.repository_id, better.tag, better.new_top)
                row = rows.setdefault(key, _Row(Remedy.Kind.REBUILD, better))
            elif brought_by:
                base = brought_by[-1]  # the one with the fewest layers: the others only pass it on
                key = (Remedy.Kind.WAIT, base.repository_id, *package)
                row = rows.setdefault(key, _Row(Remedy.Kind.WAIT, base, *package))
            else:
                kind = Remedy.Kind.UPGRADE if finding.fixed_version else Remedy.Kind.NONE
                row = rows.setdefault((kind, *package), _Row(kind, None, *package, scheme=finding.scheme))
            row.add(finding)
    yield from rows.values()


def _stored(node: RepositoryNode, row: _Row) -> Remedy:
    base = row.base
    is_rebuild = row.kind in {Remedy.Kind.REBUILD, Remedy.Kind.PROMOTE}  # on, or to, the image that the tag has now
    home = str(base.repository_id if base else "")
    parts = [
        row.kind, home, str(base.new_top if base and is_rebuild else ""),
        base.tag if base and is_rebuild else "", row.type, row.name, row.fixed_version,
    ]  # fmt: skip
    severities: dict[str, str] = {}
    for (vulnerability, _), severity in row.closes.items():
        severities[vulnerability] = min(severity, severities.get(vulnerability, severity), key=RANKS.__getitem__)
    counts: dict[str, int] = defaultdict(int)
    for severity in severities.values():
        counts[UNKNOWN if severity == NONE else severity] += 1
    return Remedy(
        repository=node.repository,
        image=node.image,
        key=hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16],
        subject=subject_of(row.kind, home, base.tag if base and is_rebuild else "", row.type, row.name),
        kind=row.kind,
        base_id=base.repository_id if base else None,
        base_tag=base.tag if base and is_rebuild else "",
        old_base=base.image if base and is_rebuild else None,
        new_base_id=base.new_top if base and is_rebuild else None,
        package_type=row.type,
        package_name=row.name,
        fixed_version=row.fixed_version,
        exploited=sum(exploit.exploited_on is not None for exploit in row.exploits.values()),
        due_at=row.due_at,
        epss=max((exploit.epss for exploit in row.exploits.values() if exploit.epss is not None), default=None),
        closes=[
            [
                name,
                severity,
                package,
                row.exploits[name].exploited_on is not None,
                row.exploits[name].epss,
                *(at and at.isoformat(timespec="seconds") for at in row.times[name]),
            ]
            for (name, package), severity in sorted(row.closes.items())
        ],
        **counts,
    )


def subject_of(kind: str, home: str, tag: str, package_type: str, package_name: str) -> str:
    """Return what names a remedy while versions and newer images change. Migration 0072 does the same in SQL.

    A package with and without a fixed version is the same subject: what is put off until a fix ships ends then.
    """
    what = "package" if kind in {Remedy.Kind.UPGRADE, Remedy.Kind.NONE} else kind
    parts = (what, home, "" if kind == Remedy.Kind.PROMOTE else tag, package_type, package_name)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def older_images(repository_ids: Collection[int], current: Mapping[int, RepositoryNode]) -> list[RepositoryNode]:
    """Return the images of these source repositories that an environment runs and that are not the current one."""
    slots = Slot.objects.filter(repository__in=repository_ids, repository__source=None, image__isnull=False).exclude(
        image__kind=Image.Kind.ARTIFACT
    )
    rows = slots.select_related("image", "repository__team", "repository__registry")
    found: dict[tuple[int, int], Slot] = {}
    for slot in rows.defer("image__manifest", "image__config").order_by("pk"):
        node = current.get(slot.repository_id)
        if slot.image is not None and (node is None or node.image.pk != slot.image.pk):
            found.setdefault((slot.repository_id, slot.image.pk), slot)
    images = {slot.image.pk: slot.image for slot in found.values() if slot.image is not None}
    members = entries_of_images(images.values())
    return [
        RepositoryNode(slot.repository, images[key], None, slot.tag, [entry.child for entry in members[key]])
        for (_, key), slot in found.items()
    ]


def _exposures(nodes: Iterable[RepositoryNode]) -> dict[int, Exposure]:
    """Return {manifest id: where an image of its repository runs, also an older one}."""
    nodes = list(nodes)
    held: dict[int, Exposure] = {}
    slots = Slot.objects.filter(repository__in={node.key for node in nodes}, image__isnull=False)
    for pk, production, internet in slots.values_list(
        "repository", "environment__is_production", "environment__is_internet_facing"
    ):
        before = held.get(pk, Exposure())
        held[pk] = Exposure(before.production or production, before.internet or internet)
    return {child.pk: held.get(node.key, Exposure()) for node in nodes for child in node.platforms}


def _findings(manifests: Collection[int], exposures: Mapping[int, Exposure]) -> dict[int, list[_Finding]]:
    """Return {manifest id: open findings}, each (package, vulnerability) once."""
    with connection.cursor() as cursor:
        cursor.execute(_FINDINGS, {"ids": list(manifests), "severities": list(SEVERITIES)})
        rows = cursor.fetchall()
    known = exploits_of({cve for row in rows for cve in row[8]})
    found: dict[int, list[_Finding]] = defaultdict(list)
    deadlines = due_dates().rows
    for image_id, vulnerability, severity, version, kind, namespace, name, scheme, cves, first_seen, position in rows:
        exploit = together(cves, known)
        fact = DueFact(
            severity, first_seen, version, exploit.exploited_on, exploit.epss, exposures.get(image_id, Exposure())
        )
        found[image_id].append(
            _Finding(
                vulnerability, severity, version, kind, full_name(namespace, name), scheme, exploit,
                first_seen, due_at(deadlines, fact), position,
            )
        )  # fmt: skip
    return found


def _bases_of(manifests: Iterable[Image]) -> dict[int, list[_Base]]:
    """Return {manifest id: its bases by layers in source repositories, nearest first}."""
    below = _layer_ancestors([image.pk for image in manifests])
    base_ids = {pk for found in below.values() for pk in found}
    images = {image.pk: image for image in _images(base_ids)}
    carriers: dict[int, set[int]] = {pk: {pk} for pk in base_ids}
    for child, index in IndexEntry.objects.filter(child__in=base_ids).values_list("child_id", "index_id"):
        carriers[child].add(index)
    pointed = {pk for found in carriers.values() for pk in found}
    source = {"repository__source": None, "repository__environment": None}
    moved = Tag.objects.filter(image__isnull=False, events__old_image__in=pointed, **source)
    tags = {row[0]: row[1:] for row in moved.values_list("pk", "repository_id", "name", "image_id")}
    left: dict[int, list[int]] = defaultdict(list)
    moves = TagEvent.objects.filter(tag__in=tags, old_image__in=pointed).order_by("-pk")
    for old, tag in moves.values_list("old_image_id", "tag_id"):
        left[old].append(tag)
    inside = RepositoryImage.objects.filter(image__in=pointed, removed_at=None, **source).order_by("-pk")
    homes = {image: (pk, place) for pk, image, place in inside.values_list("pk", "image_id", "repository_id")}
    known = {pk: _base(images[pk], carriers[pk], tags, left, homes) for pk in base_ids}
    return {
        derived: [base for pk in sorted(found, key=lambda pk: -images[pk].layer_count) if (base := known[pk])]
        for derived, found in below.items()
    }


def _layer_ancestors(manifest_ids: Collection[int]) -> dict[int, set[int]]:
    """Return {manifest id: images whose layers are its first layers}, at any distance."""
    pairs = list(Ancestry.objects.filter(descendant__in=manifest_ids).values_list("descendant_id", "ancestor_id"))
    edges: dict[int, list[int]] = defaultdict(list)
    by_layers = Derivation.objects.filter(
        derived__in={pk for pair in pairs for pk in pair}, evidence__contains=[Derivation.Evidence.LAYERS]
    )
    for derived, base in by_layers.values_list("derived_id", "base_id"):
        edges[derived].append(base)
    below: dict[int, set[int]] = {}
    for manifest in manifest_ids:
        found: set[int] = set()
        frontier = [manifest]
        while frontier:
            new = [base for pk in frontier for base in edges.get(pk, ()) if base not in found]
            found.update(new)
            frontier = new
        below[manifest] = found
    return below


def _base(
    base: Image,
    carriers: Collection[int],
    tags: Mapping[int, tuple[int, str, int]],
    left: Mapping[int, Sequence[int]],
    homes: Mapping[int, tuple[int, int]],
) -> _Base | None:
    """Return the base in its home, the repository that had it first. A copy elsewhere says nothing of newer images."""
    if not (held := [homes[carrier] for carrier in carriers if carrier in homes]):
        return None
    home = min(held)[1]
    for carrier in sorted(carriers):
        for tag in left.get(carrier, ()):
            repository_id, name, image_id = tags[tag]
            # A tag that moved between indexes with the same manifest of this platform leaves the base where it was.
            if repository_id == home and image_id not in carriers:
                return _Base(base, home, name, image_id)
    return _Base(base, home, "", None)


def _images(ids: Iterable[int]) -> list[Image]:
    return list(Image.objects.filter(pk__in=list(ids)).defer("manifest", "config"))


def _fixed(
    manifests: Mapping[int, Image], bases: Mapping[int, Sequence[_Base]], news: Mapping[tuple[int, str], Image]
) -> dict[tuple[int, int], Collection[str]]:
    """Return {(manifest id, base id): the advisories that a rebuild on the newer base fixes}. Unknown is not fixed."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    images: dict[int, Image] = {}
    for pk, found in bases.items():
        for base in found:
            new = news.get((base.new_top, manifests[pk].platform)) if base.new_top else None
            if new is not None and new.scanned_at is not None and base.image.scanned_at is not None:
                groups[base.image.pk, new.pk].append(pk)
                images |= {base.image.pk: base.image, new.pk: new}
    waiting = matching_images(list(images))
    fixed: dict[tuple[int, int], Collection[str]] = {}
    for (old, new_id), members in groups.items():
        if old not in waiting and new_id not in waiting and judgement_of(images[new_id]).package_count:
            found_now = fixed_by_new_base(members, images[old], images[new_id])
            fixed |= {(pk, old): set(names) for pk, names in found_now.items()}
    return fixed
