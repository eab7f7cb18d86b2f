"""Findings: open matches in the packages of images. They are computed on each call and not stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from django.db import connection
from django.db.models import Q, QuerySet

from accounts.models import User
from lifecycle.advisories.coverage import is_covered, no_feed, uncovered
from lifecycle.advisories.exploits import ExploitFeeds, exploit_feeds, exploits_of, together
from lifecycle.advisories.kinds import MATCH
from lifecycle.advisories.matching import PackageVerdict, verdicts
from lifecycle.advisories.models import Match
from lifecycle.advisories.queries import aliases_of
from lifecycle.core.severities import SEVERITIES, worse
from lifecycle.evidence.open_findings import (
    IMAGE_OF_MATCH,
    decided_matches_in,
    not_suppressed,
    open_matches_in,
    preference,
    unknown_matches_in,
)
from lifecycle.evidence.types import FindingKey, full_name
from lifecycle.evidence.waiving import waived_in
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import entries_of_images, platform_ids
from lifecycle.sbom.models import InventoryPackage, PackageVersion
from lifecycle.versions.coordinates import Coordinates
from lifecycle.vex.queries import Decided, decided_in


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `findings --json`. If `advisory` is None, the package cannot be checked at all.

    `state` is "open", or "unknown" with the `reason` why it could not be judged. An open finding with a `reason` stands
    on an assumption. Where a VEX statement counts, `state` is its status: "under_investigation" is still open (see
    OPEN_STATES), "not_affected", "false_positive" and "fixed" are not. "waived": accepted until a day (waiving.py).
    """

    purl: str
    advisory: str | None
    aliases: tuple[str, ...]
    fixed_version: str | None
    severity: str
    state: str
    reason: str = ""
    severity_source: str = ""  # the record that the severity is from; "" for the advisory itself
    exploit: Mapping[str, Any] | None = None  # of KEV and EPSS; None where each record is a finding of its own
    vulnerability: str = ""  # the name that all records share; "" where each record is a finding of its own
    vex: Decided | None = None  # the statement that counts
    first_seen_at: datetime | None = None  # in this package version; None: not read (due.py)
    due_at: datetime | None = None  # None: no due date, or not read
    waivers: tuple[Mapping[str, str], ...] = ()  # that cover it, as far as the reader sees them (waived.py)

    def as_json(self) -> dict[str, object]:
        """Return the object that docs/reference/inventory-format.md describes.

        `vulnerability`, what is known of exploits, `reason`, `severity_source`, `vex` and `waivers` are omitted when
        empty. A finding with `first_seen_at` has a `due_at`, which is null when it is never due.
        """
        line: dict[str, object] = {
            "purl": self.purl,
            "advisory": self.advisory,
            "aliases": list(self.aliases),
            "fixed_version": self.fixed_version,
            "severity": self.severity,
            "state": self.state,
        }
        if self.vulnerability:
            line["vulnerability"] = self.vulnerability
        if self.exploit is not None:
            line |= self.exploit
        if self.reason:
            line["reason"] = self.reason
        if self.severity_source:
            line["severity_source"] = self.severity_source
        if self.first_seen_at is not None:
            line["first_seen_at"] = self.first_seen_at.isoformat()
            line["due_at"] = self.due_at.isoformat() if self.due_at is not None else None
        if self.vex is not None:
            line["vex"] = self.vex.as_json()
        if self.waivers:
            line["waivers"] = [dict(each) for each in self.waivers]
        return line


def _urgency(finding: Finding) -> tuple[bool, float]:
    exploit = finding.exploit or {}
    return not exploit.get("is_exploited"), -(exploit.get("epss") or 0.0)


OPEN_STATES: Final = frozenset({"open", "under_investigation"})
WAIVED: Final = "waived"

# Orders of findings, most urgent first.
FINDING_SORTS: Final[Mapping[str, Callable[[Finding], Any]]] = {
    "severity": lambda finding: SEVERITIES.index(finding.severity),
    "exploit": _urgency,
    "epss": lambda finding: _urgency(finding)[1],
}


@dataclass(frozen=True, slots=True)
class Unjudged:
    """What could not be judged in some images. A finding that is gone there is not fixed: nobody knows."""

    packages: frozenset[tuple[str, str]] = frozenset()  # (type, name with namespace) that no advisory could match
    findings: frozenset[FindingKey] = frozenset()  # an advisory may affect the package, but its range is unreadable
    is_blank: bool = False  # in one of the images, no package was recognised at all
    decided: frozenset[FindingKey] = frozenset()  # a VEX statement suppresses them: neither fixed nor unknown

    def hides(self, key: FindingKey) -> bool:
        """Return whether it is unknown if the images have this finding."""
        return self.is_blank or (key.type, key.name) in self.packages or key in self.findings


def fixed_keys(before: Iterable[FindingKey], after: Container[FindingKey], unjudged: Unjudged) -> set[FindingKey]:
    """Return the findings that are fixed: gone, and their package is either judged or removed in the later image."""
    return {key for key in before if key not in after and key not in unjudged.decided and not unjudged.hides(key)}


@dataclass(frozen=True, slots=True)
class AdvisoryChanges:
    """The advisories (vulnerabilities) that change from one image to another: the unit of every "fixed" and "new".

    An advisory counts once per image, however many packages it affects. It is fixed when it affects no package of the
    later image any more, and `unknown` when nobody could judge whether it does.
    """

    fixed: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()
    same: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


def advisory_changes(
    before: Iterable[FindingKey], after: Collection[FindingKey], unjudged: Unjudged
) -> AdvisoryChanges:
    """Return the changes by advisory. Comparisons, promotions, rebuilds and their lists count with this function."""
    keys = [key for key in before if key not in unjudged.decided]
    old, new = {key.osv_id for key in keys}, {key.osv_id for key in after}
    known = set(after)
    hidden = {key.osv_id for key in keys if key not in known and unjudged.hides(key)} - new
    return AdvisoryChanges(
        frozenset(old - new - hidden), frozenset(new - old), frozenset(old & new), frozenset(hidden)
    )  # fmt: skip


def unjudged_in(image_ids: Collection[int]) -> Unjudged:
    """Return what could not be judged in these platform manifests, and what is suppressed there; four queries."""
    ids = list(image_ids)
    rows = PackageVersion.objects.filter(
        ~Q(problem="") | Q(is_unmatched=True) | ~is_covered(),
        inventory_packages__inventory__image_inventories__image__in=ids,
    )
    packages = rows.values_list("type", "namespace", "name").distinct()
    fields = ("advisory__vulnerability", "package__type", "package__namespace", "package__name")
    blank = Image.objects.filter(pk__in=ids, package_count=0, dropped_count=0, scanned_at__isnull=False)
    uncertain, decided = (
        frozenset(
            FindingKey(osv_id, kind, full_name(namespace, name))
            for osv_id, kind, namespace, name in matches.values_list(*fields)
        )
        for matches in (unknown_matches_in(ids), decided_matches_in(ids))
    )
    return Unjudged(
        frozenset((kind, full_name(namespace, name)) for kind, namespace, name in packages),
        uncertain,
        blank.exists(),
        decided - uncertain,
    )


@dataclass(frozen=True, slots=True)
class FindingsDiff:
    """The changes from one image to another: one live match for each pair of vulnerability and package.

    `unknown`: open before, and not judged in the new image. These are not fixed.
    """

    fixed: tuple[Match, ...]
    new: tuple[Match, ...]
    remaining: tuple[Match, ...]
    unknown: tuple[Match, ...]
    advisories: AdvisoryChanges


def findings_of_purls(
    packages: Sequence[tuple[str, Coordinates]],
    *,
    each_record: bool = False,
    decided: Mapping[tuple[int, str], Decided] | None = None,
    waived: Collection[tuple[int, str]] = frozenset(),
) -> list[Finding]:
    """Return the findings of packages given as (purl, coordinates), sorted, each (purl, vulnerability) once.

    `decided` has the VEX statements that count, by position in `packages` and vulnerability, and `waived` what waivers
    accept. With `each_record`, each advisory of a vulnerability is a line: (purl, advisory) once.
    """
    affecting = verdicts([item for _, item in packages])
    aliases = aliases_of({verdict.osv_id for verdict in affecting})
    cves = set() if each_record else {cve for verdict in affecting for cve in verdict.cves}
    known, feeds = exploits_of(cves), ExploitFeeds() if each_record else exploit_feeds()
    out: dict[tuple[str, str], Finding] = {}
    statements = decided or {}

    def order(verdict: PackageVerdict) -> tuple[bool, tuple[bool, bool, int, int]]:
        statement = statements.get((verdict.position, verdict.vulnerability))
        return statement is not None and statement.suppresses, preference(verdict)

    for verdict in sorted(affecting, key=order, reverse=True):  # the preferred one is written last and kept
        purl = packages[verdict.position][0]
        statement = statements.get((verdict.position, verdict.vulnerability))
        out[purl, verdict.osv_id if each_record else verdict.vulnerability] = Finding(
            purl=purl,
            advisory=verdict.osv_id,
            aliases=aliases[verdict.osv_id],
            fixed_version=verdict.fixed_version or None,
            severity=verdict.severity,
            state=_state_of(verdict, statement, is_waived=(verdict.position, verdict.vulnerability) in waived),
            reason=verdict.reason,
            severity_source=verdict.severity_source,
            exploit=None if each_record else together(verdict.cves, known).as_json(feeds),
            vulnerability="" if each_record else verdict.vulnerability,
            vex=statement,
        )
    outside = uncovered((item.ecosystem, item.release) for _, item in packages)
    for purl, item in packages:
        reason = item.problem or (
            no_feed(item.ecosystem, item.release) if (item.ecosystem, item.release) in outside else ""
        )
        if reason:
            out[purl, ""] = Finding(purl, None, (), None, "unknown", "unknown", reason)
    return [out[key] for key in sorted(out)]


def _state_of(verdict: PackageVerdict, statement: Decided | None, *, is_waived: bool) -> str:
    """Return the state of a finding. Nothing but a statement that suppresses it makes an unknown one known."""
    if is_waived and verdict.state == Match.State.OPEN and (statement is None or not statement.suppresses):
        return WAIVED
    if statement is None or statement.status == "affected":
        return verdict.state
    return verdict.state if verdict.state == Match.State.UNKNOWN and not statement.suppresses else statement.status


def findings_of_image(image: Image, *, each_record: bool = False, reader: User | None = None) -> list[Finding]:
    """Return the findings of `image` (all platforms of an index), as `findings_of_purls` does for its packages.

    What VEX statements suppress is among them, with its state. Of a decision about a base that `reader` cannot see,
    only the status is shown.
    """
    manifests = platform_ids(image)
    packages = list(
        PackageVersion.objects.filter(inventory_packages__inventory__image_inventories__image__in=manifests).distinct()
    )
    return findings_of_purls(
        [
            (
                package.purl,
                Coordinates(
                    ecosystem=package.ecosystem,
                    release=package.release,
                    name=package.match_name,
                    version=package.match_version,
                    scheme=package.scheme,
                    key=None if package.version_key is None else bytes(package.version_key),
                    problem=package.problem or None,
                ),
            )
            for package in packages
        ],
        each_record=each_record,
        decided=_decided_of(manifests, packages, reader),
        waived=_waived_of(manifests, packages),
    )


def _decided_of(
    manifests: Collection[int], packages: Sequence[PackageVersion], reader: User | None
) -> dict[tuple[int, str], Decided]:
    """Return {(position in `packages`, vulnerability): the statement that counts in all platforms with the package}."""
    found = decided_in(manifests, reader)
    if not found:
        return {}
    image = "inventory__image_inventories__image"
    rows = InventoryPackage.objects.filter(package__in={key[1] for key in found}, **{f"{image}__in": manifests})
    carriers: dict[int, set[int]] = defaultdict(set)
    for package_id, image_id in rows.values_list("package_id", image):
        carriers[package_id].add(image_id)
    positions = {package.pk: number for number, package in enumerate(packages)}
    decided: dict[tuple[int, str], Decided] = {}
    for (_, package_id, vulnerability), statement in found.items():
        others = [found.get((pk, package_id, vulnerability)) for pk in carriers[package_id]]
        # Open in one platform is open.
        if package_id in positions and all(
            other is not None and other.suppresses == statement.suppresses for other in others
        ):
            decided[positions[package_id], vulnerability] = statement
    return decided


def _waived_of(manifests: Collection[int], packages: Sequence[PackageVersion]) -> set[tuple[int, str]]:
    """Return (position in `packages`, vulnerability) of what is waived in all platforms with the package."""
    found = waived_in(manifests)
    if not found:
        return set()
    image = "inventory__image_inventories__image"
    rows = InventoryPackage.objects.filter(package__in={key[1] for key in found}, **{f"{image}__in": manifests})
    carriers: dict[int, set[int]] = defaultdict(set)
    for package_id, image_id in rows.values_list("package_id", image):
        carriers[package_id].add(image_id)
    positions = {package.pk: number for number, package in enumerate(packages)}
    return {
        (positions[package_id], name)
        for _, package_id, name in found
        if package_id in positions and all((pk, package_id, name) in found for pk in carriers[package_id])
    }


def unscanned(image: Image) -> list[tuple[str, str]]:
    """Return (digest, reason) of each platform of `image` with unknown packages, which can have findings."""
    platforms = Image.objects.filter(pk__in=platform_ids(image), scanned_at=None).order_by("digest")
    return [(platform.digest, platform.scan_problem or "its packages are not scanned yet") for platform in platforms]


def matches_of_images(image_ids: Iterable[int]) -> list[Match]:
    """Return the open matches of packages in these images, each once, with package and advisory."""
    return _each_match_once(open_matches_in(list(image_ids)))


def unknown_matches_of_images(image_ids: Iterable[int]) -> list[Match]:
    """Return the unknown matches of packages in these images, each once, with package, advisory and `reason`."""
    return _each_match_once(unknown_matches_in(list(image_ids)))


def _each_match_once(matches: QuerySet[Match]) -> list[Match]:
    rows = Match.objects.filter(pk__in=matches.values("pk")).select_related("package", "advisory")
    return list(rows.order_by("advisory__vulnerability", "package__purl", "pk"))


@dataclass(frozen=True, slots=True)
class UnknownFindings:
    """How many (package version, advisory) pairs of an image could not be judged, and the distinct reasons."""

    count: int = 0
    reasons: tuple[str, ...] = ()


def unknown_findings(image_ids: Collection[int]) -> dict[int, UnknownFindings]:
    """Return the unknown findings of each of these platform manifests, by image id. One query for any number.

    These are the pairs for which an advisory has an unreadable range. Packages that cannot be matched with any advisory
    (`PackageVersion.problem`) are not among them.
    """
    rows = unknown_matches_in(image_ids).values_list(IMAGE_OF_MATCH, "pk", "reason").distinct()
    reasons: dict[int, list[str]] = defaultdict(list)
    for image_id, _, reason in rows.order_by("reason"):
        reasons[image_id].append(reason)
    return {
        image_id: UnknownFindings(len(reasons[image_id]), tuple(dict.fromkeys(reasons[image_id])))
        for image_id in image_ids
    }


def _key(match: Match) -> FindingKey:
    package = match.package
    return FindingKey(match.advisory.vulnerability, package.type, full_name(package.namespace, package.name))


def diff_of_images(before: Image, after: Image) -> FindingsDiff:
    """Return which findings of `before` are fixed in `after`, which are new, remain, or are unknown there.

    A finding remains when its package's version changes but the advisory still affects it.
    """
    old = {_key(match): match for match in matches_of_images(platform_ids(before))}
    new = {_key(match): match for match in matches_of_images(platform_ids(after))}
    unjudged = unjudged_in(platform_ids(after))
    gone = sorted(old.keys() - new.keys() - unjudged.decided)
    return FindingsDiff(
        fixed=tuple(old[key] for key in gone if not unjudged.hides(key)),
        new=tuple(new[key] for key in sorted(new.keys() - old.keys())),
        remaining=tuple(new[key] for key in sorted(new.keys() & old.keys())),
        unknown=tuple(old[key] for key in gone if unjudged.hides(key)),
        advisories=advisory_changes(old, new.keys(), unjudged),
    )


def fixed_by_new_base(image_ids: Collection[int], before: Image, after: Image) -> dict[int, list[str]]:
    """Return, for each image id, the advisories that are fixed when the base changes from `before` to `after`.

    A package counts as the base's when the image has the same version of it as `before`. An advisory is not fixed when
    it still affects `after` or one of the image's own packages, or when that is unknown. What a VEX statement
    suppresses is not open, so nothing fixes it. A fixed number of queries for any number of images.
    """
    base = InventoryPackage.objects.filter(inventory__image_inventories__image=before).values("package_id")
    image = IMAGE_OF_MATCH
    still = Match.objects.filter(valid_to=None, **{image: after}).values("advisory__vulnerability")
    unjudged = unjudged_in([after.pk])
    # One filter() call, so that the image in each row is one of `image_ids`.
    rows = Match.objects.filter(not_suppressed(), valid_to=None, **{f"{image}__in": image_ids})
    fixed: dict[int, set[str]] = {image_id: set() for image_id in image_ids}
    hidden: dict[int, set[str]] = {image_id: set() for image_id in image_ids}
    from_base = rows.filter(package__in=base, state=Match.State.OPEN).exclude(advisory__vulnerability__in=still)
    fields = (image, "advisory__vulnerability", "package__type", "package__namespace", "package__name")
    for image_id, osv_id, kind, namespace, name in from_base.values_list(*fields):
        is_hidden = unjudged.hides(FindingKey(osv_id, kind, full_name(namespace, name)))
        (hidden if is_hidden else fixed)[image_id].add(osv_id)
    candidates = {osv_id for osv_ids in fixed.values() for osv_id in osv_ids}
    own = rows.filter(advisory__vulnerability__in=candidates).exclude(package__in=base)
    for image_id, osv_id in own.values_list(image, "advisory__vulnerability"):
        fixed[image_id].discard(osv_id)
    return {image_id: sorted(osv_ids - hidden[image_id]) for image_id, osv_ids in fixed.items()}


def is_matching(image_ids: Collection[int]) -> bool:
    """Return whether packages of these images still wait to be matched, so that findings may be missing.

    Packages of a failed job count as waiting until a later job for the same payload (jobs/schedule.py queues it again).
    """
    package_ids = _waiting_packages()
    if not package_ids:
        return False
    contained = InventoryPackage.objects.filter(inventory__image_inventories__image__in=image_ids)
    return contained.filter(package__in=package_ids).exists()


def matching_images(image_ids: Collection[int]) -> set[int]:
    """Return those of these platform manifests for which `is_matching` is true. At most two queries."""
    package_ids = _waiting_packages()
    if not package_ids or not image_ids:
        return set()
    image = "inventory__image_inventories__image"
    rows = InventoryPackage.objects.filter(package__in=package_ids, **{f"{image}__in": image_ids})
    return set(rows.values_list(image, flat=True).distinct())


# One part for each state: each state has its own index, but no index covers all three.
_WAITING: Final = """
SELECT payload -> 'package_ids' FROM lifecycle_job
WHERE kind = %(kind)s AND state = 'waiting' AND payload ? 'package_ids'
UNION ALL
SELECT payload -> 'package_ids' FROM lifecycle_job
WHERE kind = %(kind)s AND state = 'running' AND payload ? 'package_ids'
UNION ALL
SELECT payload -> 'package_ids' FROM lifecycle_job job
WHERE kind = %(kind)s AND state = 'failed' AND payload ? 'package_ids' AND NOT EXISTS (
    SELECT FROM lifecycle_job newer
    WHERE newer.kind = %(kind)s AND newer.subject_id = job.subject_id
      AND newer.payload = job.payload AND newer.id > job.id
)
"""


def _waiting_packages() -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"kind": MATCH.name})
        return {pk for (listed,) in cursor.fetchall() for pk in orjson.loads(listed)}


def finding_severities(images: Iterable[Image]) -> dict[int, dict[FindingKey, str] | None]:
    """Return, for each image id, its open findings with their severity; None while its packages are unknown.

    A few queries for any number of images. An index has the findings of all its platforms. When several versions of a
    package, or several platforms, have the same finding, the worst severity counts.
    """
    images_by_id = {image.pk: image for image in images}
    platforms = entries_of_images(images_by_id.values())
    of_manifest: dict[int, dict[FindingKey, str]] = defaultdict(dict)
    children = {child.pk for pairs in platforms.values() for _, child in pairs}
    rows = (
        open_matches_in(children)
        .values_list(
            IMAGE_OF_MATCH, "advisory__vulnerability", "package__type", "package__namespace", "package__name",
            "severity",
        )
        .distinct()
    )  # fmt: skip
    for image_id, osv_id, kind, namespace, name, severity in rows:
        key = FindingKey(osv_id, kind, full_name(namespace, name))
        of_manifest[image_id][key] = worse(severity, of_manifest[image_id].get(key))
    severities: dict[int, dict[FindingKey, str] | None] = {}
    for image_id in images_by_id:
        pairs = platforms.get(image_id, [])
        if not pairs or any(child.scanned_at is None for _, child in pairs):
            severities[image_id] = None
            continue
        merged: dict[FindingKey, str] = {}
        for _, child in pairs:
            for key, severity in of_manifest.get(child.pk, {}).items():
                merged[key] = worse(severity, merged.get(key))
        severities[image_id] = merged
    return severities
