"""The fleet that the tests of alerts begin with."""

from __future__ import annotations

import pytest

from lifecycle.advisories.models import Advisory
from lifecycle.alerts import passes
from lifecycle.core import clock
from lifecycle.lineage.models import Derivation
from tests.factories import dock
from tests.factories.alerting import fence


@pytest.fixture
def fleet(db):
    """Return the harbour with a base in use: base/debian:old, base/python on it, and images of shop on these."""
    made = dock.harbour()
    dock.push(dock.repository("base/debian"), made["old"], "old")
    made["shop_dev"] = dock.user("only-shop", "maintainer", of=dock.team("shop"))
    made["base_dev"] = dock.user("only-base", "security", of=dock.team("base"))
    Derivation.objects.update(evidence=["layers"], confidence="high")
    for name in ("CVE-2024-5535", "CVE-2011-4116"):
        Advisory.objects.filter(osv_id=name).update(vulnerability=name, cves=[name])
    passes.remember_all(clock.now(), fence)
    return made
