"""A token of a robot is replaced with an overlap, so that no pipeline fails while its secret is changed (B8)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from accounts import tokens
from accounts.models import ApiToken, Robot
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound
from tests.clients import Caller, browser
from tests.factories.people import robot

pytestmark = pytest.mark.django_db


@pytest.fixture
def ci(dock: Any) -> Robot:
    return robot(dock.team, "viewer", maker=dock.owner)


def make(ci: Robot, dock: Any, **more: Any) -> tuple[ApiToken, str]:
    return services.create_robot_token(ci.pk, actor=dock.owner, name="pipeline", **more)


def left(token: ApiToken) -> timedelta:
    token.refresh_from_db()
    return token.expires_at - clock.now()


def test_token_ends_after_ninety_days_by_default(ci: Robot, dock: Any) -> None:
    row, _ = make(ci, dock)
    assert timedelta(days=89) < left(row) <= timedelta(days=90)


def test_replaced_token_works_for_the_overlap_and_the_event_says_so(ci: Robot, dock: Any) -> None:
    old, old_text = make(ci, dock)
    new, new_text = make(ci, dock, replaces=old.pk)
    assert tokens.find_token(old_text) is not None
    assert tokens.find_token(new_text) is not None
    assert timedelta(hours=23) < left(old) <= timedelta(hours=24)
    details = AuditEvent.objects.get(action="token.replaced").details
    assert (details["lookup"], details["replaced_by"]) == (old.lookup, new.lookup)
    assert details["after"] < details["before"]


def test_overlap_never_makes_a_token_longer_and_none_ends_it_now(ci: Robot, dock: Any) -> None:
    old, _ = make(ci, dock, days=1)
    make(ci, dock, replaces=old.pk, overlap_hours=7 * 24)
    assert left(old) <= timedelta(days=1)
    _, text = second = make(ci, dock, replaces=old.pk, overlap_hours=0)
    old.refresh_from_db()
    assert old.revoked_at is not None
    with pytest.raises(Malformed, match="overlap"):
        make(ci, dock, replaces=second[0].pk, overlap_hours=10_000)
    assert tokens.find_token(text) is not None


def test_only_a_live_token_of_the_same_robot_is_replaced(ci: Robot, dock: Any) -> None:
    other, _ = services.create_robot_token(
        robot(dock.team, "viewer", name="other", maker=dock.owner).pk, actor=dock.owner, name="x"
    )
    own, _ = tokens.create_token(dock.owner, kind="pat", name="x")
    for row in (other, own):
        before = ApiToken.objects.count()
        answer = Caller(dock.owner).post(f"teams/shop/robots/{ci.pk}/tokens/", {"name": "n", "replaces": row.pk})
        assert answer.status_code == 404
        assert ApiToken.objects.filter(user=ci.user).count() == 0
        assert ApiToken.objects.count() == before + 1  # of the caller itself
    with pytest.raises(NotFound):
        make(ci, dock, replaces=10**9)


def test_page_offers_the_tokens_to_replace(ci: Robot, dock: Any) -> None:
    old, _ = make(ci, dock)
    page = browser(dock.owner)
    assert f'value="{old.pk}"' in page.get(f"/teams/shop/robots/{ci.pk}/").content.decode()
    form = {"name": "next", "days": "90", "replaces": str(old.pk), "overlap_hours": "1"}
    assert page.post(f"/teams/shop/robots/{ci.pk}/tokens/", form).status_code == 200
    assert left(old) <= timedelta(hours=1)
    answer = Caller(dock.owner).post(f"teams/shop/robots/{ci.pk}/tokens/", {"name": "n", "overlap_hours": 2})
    assert answer.status_code == 201
