"""Codes of an authenticator app have a small budget of their own, which nobody can use to lock the owner out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from freezegun import freeze_time

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.authority import limiter, services
from lifecycle.authority.models import CredentialFailure
from lifecycle.authority.second_factors import is_of_app
from lifecycle.core import clock
from lifecycle.core.context import RequestContext, request_context
from lifecycle.notices.models import Notice

pytestmark = pytest.mark.django_db
HOME, ELSEWHERE = "192.0.2.7", "198.51.100.9"


@pytest.fixture
def kim(db: None) -> User:
    return User.objects.create(username="kim")


def guess(times: int, *, address: str = ELSEWHERE, ago: timedelta = timedelta(0)) -> int:
    """Try so many codes that are wrong; return how many were looked at."""
    made = [limiter.reserve_code("kim", address) for _ in range(times)]
    rows = [attempt.row_id for attempt in made if attempt is not None]
    CredentialFailure.objects.filter(pk__in=rows).update(at=clock.now() - ago)
    return len(rows)


def sign_in_from(user: User, address: str) -> None:
    with request_context(RequestContext(address=address)), transaction.atomic():
        audit.record(Action.SESSION_STARTED, actor=user, subject=user, details=UserDetails(user=user.username))


def test_guesses_of_a_day_are_twenty_however_patient_they_are(kim: User) -> None:
    assert guess(100, ago=timedelta(minutes=6)) == 5
    assert guess(100, ago=timedelta(minutes=61)) == 5
    assert guess(100, ago=timedelta(minutes=61)) == 5
    assert guess(100, ago=timedelta(minutes=61)) == 5
    assert guess(100) == 0
    CredentialFailure.objects.update(at=clock.now() - timedelta(hours=25))
    assert guess(100) == 5  # never for ever


def test_owner_is_not_locked_out_where_they_signed_in_lately(kim: User) -> None:
    sign_in_from(kim, HOME)
    while guess(5, ago=timedelta(minutes=61)):
        pass
    assert limiter.reserve_code("kim", ELSEWHERE) is None
    assert limiter.reserve_code("kim", None) is None
    attempt = limiter.reserve_code("kim", HOME)
    assert attempt is not None
    attempt.succeeded()
    assert guess(100, address=HOME) == 5  # a budget too, not a way around it


def test_wrong_codes_are_not_counted_twice_with_passwords(kim: User) -> None:
    guess(5)
    assert not limiter.is_exhausted("kim", ELSEWHERE)
    assert CredentialFailure.objects.filter(is_code=False).count() == 0


def test_new_password_and_unlocking_give_the_budget_back(kim: User) -> None:
    guess(20)
    limiter.forgive("kim")
    assert guess(1) == 1


@pytest.mark.parametrize(
    ("text", "is_one"), [("123456", True), ("123 456", True), ("ABCD-EFGH-IJKL-MNOP", False), ("12345", False)]
)
def test_only_codes_of_apps_are_in_the_budget(text: str, is_one: bool) -> None:
    assert is_of_app(text) is is_one


def test_person_is_told_once_a_day_that_somebody_guesses(kim: User) -> None:
    guess(4)
    services.note_refused(kim)
    assert not Notice.objects.exists()
    guess(1)
    with freeze_time("2026-03-02 12:00"):  # not around midnight
        services.note_refused(kim)
        services.note_refused(kim)
    notice = Notice.objects.get()
    assert notice.person == kim
    assert "somebody knows your password" in notice.text
