"""SQL, ORM and Python prefer the same record when several feeds have one id."""

from __future__ import annotations

import itertools

import pytest
from django.db import connection

from lifecycle.advisories.matching import PackageVerdict
from lifecycle.advisories.models import Advisory, Feed, Match
from lifecycle.core.severities import SEVERITIES
from lifecycle.evidence.open_findings import LIVE_SQL, PREFERENCE_SQL, open_matches, preference, unknown_matches
from lifecycle.sbom.models import PackageVersion

pytestmark = pytest.mark.django_db


def test_sql_orm_and_python_prefer_the_same_record():
    """Check every pair of (fix, severity), each on its own package version, in both orders."""
    kinds = list(itertools.product(("", "1.2"), SEVERITIES))
    feeds = [Feed.objects.create(name=name, location="x") for name in ("one", "two")]
    unreadable = Feed.objects.create(name="unreadable", location="x")
    expected = set()
    for number, (first, second) in enumerate(itertools.product(kinds, repeat=2)):
        package = PackageVersion.objects.create(purl=f"pkg:pypi/p{number}@1", type="pypi", name=f"p{number}")
        verdicts = []
        for feed, (fix, severity) in zip(feeds, (first, second), strict=True):
            advisory = Advisory.objects.create(feed=feed, osv_id=f"X-{number}", directory="x", modified="x")
            match = Match.objects.create(advisory=advisory, package=package, fixed_version=fix, severity=severity)
            verdicts.append((PackageVerdict(0, advisory.pk, advisory.osv_id, fix, severity), match.pk))
        expected.add(min(verdicts, key=lambda item: preference(item[0]))[1])
    for item in PackageVersion.objects.order_by("pk")[:20]:  # an unknown match of a third feed changes nothing
        Match.objects.create(
            advisory=Advisory.objects.create(
                feed=unreadable, osv_id=item.matches.all()[0].advisory.osv_id, directory="x", modified="x"
            ),
            package=item, severity="critical", state="unknown", reason="it cannot be read",
        )  # fmt: skip
    assert not unknown_matches().exists()
    assert set(open_matches().values_list("pk", flat=True)) == expected
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT ON (m.package_id, a.osv_id) m.id FROM lifecycle_match m"
            f" JOIN lifecycle_advisory a ON a.id = m.advisory_id WHERE {LIVE_SQL}"
            f" ORDER BY m.package_id, a.osv_id, {PREFERENCE_SQL}",
            {"severities": list(SEVERITIES)},
        )
        assert {row[0] for row in cursor.fetchall()} == expected
