"""The definition of open and unknown findings: for ORM queries, for SQL, and for computed verdicts.

An open finding is a live match, in state `open`, of one vulnerability with one package version. Several records, of one
or several feeds, can be about the same vulnerability (`Advisory.vulnerability`). Then one record counts: one that could
be judged, then one with a fix, then the one with the worst severity, then the oldest one. This module defines that
order for each of the three forms. A test compares them.

A finding that a VEX statement suppresses in an image (`vex.effects`), or that is waived there (`waiving`), is not open
there. So the questions about images go through `open_matches_in`, and SQL about images adds `not_suppressed_sql`. Gates
do not: they judge each waiver by its rule and its environment (`policy_facts`).

An unknown finding is the same for the state `unknown`, where no feed has an open match: the record has a version range
that cannot be read. Unknown findings are never open, and an image that has one is never healthy.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from django.db.models import Case, Exists, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Now

from lifecycle.advisories.matching import PackageVerdict
from lifecycle.advisories.models import Match
from lifecycle.core.severities import SEVERITIES
from lifecycle.evidence.models import WaivedFinding
from lifecycle.vex.models import VexEffect

# For SQL over lifecycle_match m and lifecycle_advisory a, with the parameter `severities` (SEVERITIES as a list):
# SELECT DISTINCT ON (m.package_id, a.vulnerability) ... WHERE LIVE_SQL
# ORDER BY m.package_id, a.vulnerability, PREFERENCE_SQL.
LIVE_SQL: Final = "m.valid_to IS NULL AND m.state = 'open'"
PREFERENCE_SQL: Final = "m.fixed_version = '', array_position(%(severities)s::varchar[], m.severity), a.id"

IMAGE_OF_MATCH: Final = "package__inventory_packages__inventory__image_inventories__image"


# What ended a moment ago suppresses nothing, although the job that counts its images again has not run yet.
IN_FORCE_SQL: Final = (
    "EXISTS (SELECT FROM lifecycle_vexstatement said WHERE said.id = effect.statement_id AND said.state = 'live'"
    " AND (said.until IS NULL OR said.until > now()))"
)


# The same for a waiver: it reopens its findings at the moment when it ends.
_GIVEN_SQL: Final = (
    "EXISTS (SELECT FROM lifecycle_waiver given WHERE given.id = waived.waiver_id AND given.state = 'approved'"
    " AND given.until > now())"
)
# What is closed in an image, as a relation. It can have rows of what ended a moment ago.
CLOSED_SQL: Final = (
    "(SELECT image_id, package_id, vulnerability FROM lifecycle_vexeffect WHERE suppresses"
    " UNION SELECT image_id, package_id, vulnerability FROM lifecycle_waivedfinding)"
)


def not_decided_sql(image: str, package: str, vulnerability: str) -> str:
    """Return the SQL condition that no VEX statement closes a finding, from what names it. A waiver can."""
    return f"""
        NOT EXISTS (SELECT FROM lifecycle_vexeffect effect WHERE effect.image_id = {image}
                    AND effect.package_id = {package} AND effect.vulnerability = {vulnerability}
                    AND effect.suppresses AND {IN_FORCE_SQL})
    """


def not_suppressed_sql(image: str, package: str, vulnerability: str) -> str:
    """Return the SQL condition that no VEX statement and no waiver closes a finding, from what names it."""
    return f"""
        ({not_decided_sql(image, package, vulnerability)}
         AND NOT EXISTS (SELECT FROM lifecycle_waivedfinding waived WHERE waived.image_id = {image}
                         AND waived.package_id = {package} AND waived.vulnerability = {vulnerability}
                         AND {_GIVEN_SQL}))
    """


def not_suppressed_everywhere_sql(package: str, vulnerability: str) -> str:
    """Return the SQL condition that a finding of a package version is not closed in every image that has it."""
    return f"""
        ((NOT EXISTS (SELECT FROM lifecycle_vexeffect effect WHERE effect.package_id = {package}
                      AND effect.vulnerability = {vulnerability} AND effect.suppresses
                      AND {IN_FORCE_SQL})
          AND NOT EXISTS (SELECT FROM lifecycle_waivedfinding waived WHERE waived.package_id = {package}
                          AND waived.vulnerability = {vulnerability} AND {_GIVEN_SQL}))
         OR EXISTS (SELECT FROM lifecycle_inventorypackage ip
                    JOIN lifecycle_imageinventory ii ON ii.inventory_id = ip.inventory_id
                    WHERE ip.package_id = {package}
                      AND {not_suppressed_sql("ii.image_id", package, vulnerability)}))
    """  # noqa: S608 -- the arguments are constants of our modules


def preference(verdict: PackageVerdict) -> tuple[bool, bool, int, int]:
    """Return the sort key of verdicts about one advisory id and one package version, preferred first."""
    is_unknown = verdict.state == Match.State.UNKNOWN
    return is_unknown, not verdict.fixed_version, SEVERITIES.index(verdict.severity), verdict.advisory_id


def _preferred(state: Match.State) -> QuerySet[Match]:
    rank = Case(*[When(severity=name, then=Value(rank)) for rank, name in enumerate(SEVERITIES)], default=Value(9))
    same = Match.objects.filter(
        valid_to=None,
        state=state,
        package=OuterRef("package"),
        advisory__vulnerability=OuterRef("advisory__vulnerability"),
    ).order_by(Case(When(fixed_version="", then=Value(1)), default=Value(0)), rank, "advisory_id")
    return Match.objects.filter(valid_to=None, state=state, pk=Subquery(same.values("pk")[:1]))


def open_matches() -> QuerySet[Match]:
    """Return the matches that are open findings: each (package version, vulnerability) once."""
    return _preferred(Match.State.OPEN)


def unknown_matches() -> QuerySet[Match]:
    """Return the matches that are unknown findings: each (package version, vulnerability) once, none of them open."""
    is_open = Match.objects.filter(
        valid_to=None,
        state=Match.State.OPEN,
        package=OuterRef("package"),
        advisory__vulnerability=OuterRef("advisory__vulnerability"),
    )
    return _preferred(Match.State.UNKNOWN).filter(~Exists(is_open))


def open_matches_in(image_ids: Collection[int]) -> QuerySet[Match]:
    """Return the open findings of these platform manifests, as matches joined to IMAGE_OF_MATCH and its columns.

    A match has a row for each image that it is open in, and each place of the package there. A match that a VEX
    statement suppresses, or that is waived, has no row for that image.
    """
    return _in(open_matches(), image_ids)


def unknown_matches_in(image_ids: Collection[int]) -> QuerySet[Match]:
    """Return the unknown findings of these platform manifests, as `open_matches_in` does."""
    return _in(unknown_matches(), image_ids)


def _in(matches: QuerySet[Match], image_ids: Collection[int]) -> QuerySet[Match]:
    return matches.filter(not_suppressed(), **{f"{IMAGE_OF_MATCH}__in": list(image_ids)})


def decided_matches_in(image_ids: Collection[int]) -> QuerySet[Match]:
    """Return the live matches that a VEX statement suppresses, or that are waived, in one of these platform manifests.

    Joined likewise. Each pair of package version and vulnerability once, as for open findings.
    """
    matches = open_matches() | unknown_matches()
    closed = Q(Exists(_suppressing())) | Q(Exists(_waiving()))
    return matches.filter(closed, **{f"{IMAGE_OF_MATCH}__in": list(image_ids)})


def waived_matches_in(image_ids: Collection[int]) -> QuerySet[Match]:
    """Return the open matches that are waived in one of these platform manifests, joined likewise.

    What a VEX statement suppresses there too is not among them: the statement says more.
    """
    return open_matches().filter(
        ~Exists(_suppressing()), Exists(_waiving()), **{f"{IMAGE_OF_MATCH}__in": list(image_ids)}
    )


def not_suppressed() -> Q:
    """Return the condition that no VEX statement and no waiver closes a match in the image of its row.

    Use it in one filter() call with the condition on IMAGE_OF_MATCH, so that both are about the same image.
    """
    return Q(~Exists(_suppressing())) & Q(~Exists(_waiving()))


def _waiving() -> QuerySet[WaivedFinding]:
    return WaivedFinding.objects.filter(
        waiver__state="approved",
        waiver__until__gt=Now(),
        image=OuterRef(IMAGE_OF_MATCH),
        package=OuterRef("package"),
        vulnerability=OuterRef("advisory__vulnerability"),
    )


def _suppressing() -> QuerySet[VexEffect]:
    return VexEffect.objects.filter(
        Q(statement__until=None) | Q(statement__until__gt=Now()),
        statement__state="live",
        image=OuterRef(IMAGE_OF_MATCH),
        package=OuterRef("package"),
        vulnerability=OuterRef("advisory__vulnerability"),
        suppresses=True,
    )
