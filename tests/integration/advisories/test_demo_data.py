"""The advisories of the demonstration: what any of its records knows of a severity counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from accounts.queries import system_user
from lifecycle.advisories.models import Advisory
from lifecycle.advisories.services import sync_feed

pytestmark = pytest.mark.django_db
DATA = Path(__file__).parents[3] / "lifecycle" / "advisories" / "data" / "demo"


def test_debian_records_take_their_severity_from_the_record_of_their_cve() -> None:
    report = sync_feed(str(DATA), feed_name="demo", actor=system_user())
    assert report.errors == []
    debian = Advisory.objects.filter(directory="Debian")
    names = list(Advisory.objects.filter(directory="CVE").values_list("osv_id", flat=True))
    lent = debian.filter(upstream__overlap=names)
    assert (len(names), lent.count()) == (290, 290)
    assert not lent.filter(severity="unknown").exists()
    assert debian.filter(severity="unknown").exists()  # nothing is made up
    row = debian.get(upstream__contains=["CVE-2019-14232"])
    assert (row.own_severity, row.severity, row.severity_source) == ("unknown", "high", "CVE-2019-14232")
