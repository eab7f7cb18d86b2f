"""Rules about signatures and bases, over what `lifecycle.trust` verified. Nothing checked is never a pass."""

from __future__ import annotations

import pytest

from lifecycle.core import clock
from lifecycle.evidence.verdicts import judge
from lifecycle.policies.types import Scope
from lifecycle.promotion.gates import BEFORE
from lifecycle.trust.models import TrustCheck
from tests.factories.policies import ENFORCE, rule, save

pytestmark = pytest.mark.django_db


def statuses(dock):
    verdict = judge(dock.image, dock.repository, dock.staging, BEFORE)
    return {item.rule.key: item.outcome.status.value for item in verdict.judged}


def test_unchecked_signatures_are_unknown_and_absent_ones_do_not_pass(dock):
    save(
        Scope(dock.team),
        rule("any", "signed_by_any", signers=["release"], modes=ENFORCE),
        rule("all", "signed_by_all", signers=["release"], modes=ENFORCE),
        rule("built", "provenance", builders=["*"], modes=ENFORCE),
        rule("base", "base_trusted", modes=ENFORCE),
        actor=dock.owner,
    )
    assert statuses(dock) == {"any": "error", "all": "error", "built": "error", "base": "error"}
    TrustCheck.objects.update_or_create(image=dock.image, defaults={"checked_at": clock.now()})
    assert statuses(dock) == {"any": "unsatisfied", "all": "unsatisfied", "built": "unsatisfied", "base": "error"}
