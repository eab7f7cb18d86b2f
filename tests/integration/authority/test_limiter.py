"""The count of rejected credentials at its limits: per account, per address, and only in its window."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import limiter
from lifecycle.authority.confirming import confirm_password
from lifecycle.authority.limiter import PER_ACCOUNT, PER_ADDRESS
from lifecycle.authority.models import CredentialFailure
from lifecycle.core.context import RequestContext, request_context
from lifecycle.core.errors import NotPermitted, TooManyAttempts, WrongPassword

pytestmark = pytest.mark.django_db
HERE, THERE = "192.0.2.7", "192.0.2.8"


def failed(count: int, account: str = "", address: str | None = None, *, seconds: float = 0) -> None:
    rows = CredentialFailure.objects.bulk_create(
        CredentialFailure(account=account, address=address) for _ in range(count)
    )
    at = timezone.now() - timedelta(seconds=seconds)
    CredentialFailure.objects.filter(pk__in=[row.pk for row in rows]).update(at=at)


@pytest.mark.parametrize(
    ("count", "account", "address", "seconds", "is_exhausted"),
    [
        (PER_ACCOUNT - 1, "anna", None, 0, False),
        (PER_ACCOUNT, "anna", None, 0, True),
        (PER_ACCOUNT, "anna", None, 290, True),
        (PER_ACCOUNT, "anna", None, 310, False),
        (PER_ACCOUNT, "bert", None, 0, False),
        (PER_ACCOUNT, "", None, 0, False),
        (PER_ADDRESS - 1, "", HERE, 0, False),
        (PER_ADDRESS, "", HERE, 0, True),
        (PER_ADDRESS, "", HERE, 310, False),
        (PER_ADDRESS, "", THERE, 0, False),
    ],
)
def test_budget_is_used_up_exactly_at_its_limit(count, account, address, seconds, is_exhausted):
    failed(count, account, address, seconds=seconds)
    assert limiter.is_exhausted("anna", HERE) is is_exhausted
    before = CredentialFailure.objects.count()
    assert limiter.note_failure("anna", HERE) is not is_exhausted
    assert CredentialFailure.objects.count() == before + (not is_exhausted)


def test_account_and_address_count_alone():
    failed(PER_ADDRESS)  # without account and address: nobody's
    assert not limiter.is_exhausted("", None)
    assert not limiter.is_exhausted("", "no address")
    failed(PER_ACCOUNT, "anna")
    assert limiter.is_exhausted("ANNA", None)
    assert limiter.is_exhausted("anna", HERE)
    assert not limiter.is_exhausted("", HERE)


def test_success_takes_back_only_its_own_attempt():
    failed(2, "anna")
    attempt = limiter.reserve("Anna", HERE)
    assert attempt is not None
    row = CredentialFailure.objects.get(pk=attempt.row_id)
    assert (row.account, str(row.address)) == ("anna", HERE)
    attempt.succeeded()
    assert CredentialFailure.objects.count() == 2
    assert limiter.reserve("anna", "no address").row_id == CredentialFailure.objects.get(address=None, pk__gt=row.pk).pk


def test_names_are_cut_and_cleaned_alike():
    limiter.note_failure("A\x00" + "b" * 200, None)
    row = CredentialFailure.objects.get()
    assert row.account == "a\ufffd" + "b" * 148
    assert limiter.forgive("a\x00" + "B" * 300) == 1


def test_forgiven_account_can_try_again_and_others_cannot():
    failed(PER_ACCOUNT, "anna")
    failed(PER_ACCOUNT, "bert")
    assert limiter.forgive("ANNA") == PER_ACCOUNT
    assert (limiter.is_exhausted("anna", None), limiter.is_exhausted("bert", None)) == (False, True)
    assert limiter.forgive("anna") == 0


def test_old_rows_are_forgotten_after_a_day():
    failed(3, "anna", seconds=24 * 3600 + 60)
    failed(2, "anna", seconds=24 * 3600 - 60)
    assert limiter.forget_old() == 3
    assert CredentialFailure.objects.count() == 2
    assert limiter.forget_old() == 0


@pytest.mark.django_db(transaction=True)
def test_attempts_on_one_account_wait_for_each_other(in_other_connection):
    from django.db import OperationalError, transaction

    with transaction.atomic():
        assert limiter.reserve("anna", HERE) is not None
        assert in_other_connection(lambda: limiter.reserve("bert", HERE)) is not None
        with pytest.raises(OperationalError, match="lock timeout"):
            in_other_connection(lambda: limiter.reserve("ANNA", THERE))
    assert in_other_connection(lambda: limiter.reserve("anna", THERE)) is not None


# --- Asking for the password again --------------------------------------------------------------------------------


def test_password_is_confirmed_within_the_limits_of_the_sign_in():
    kim = User.objects.create_user("kim", password="dock-side-pass")
    with request_context(RequestContext(address=HERE)):
        confirm_password(kim, "dock-side-pass")
        assert not CredentialFailure.objects.exists()
        assert not AuditEvent.objects.filter(action="session.refused").exists()
        with pytest.raises(WrongPassword):
            confirm_password(kim, "wrong")
        row = CredentialFailure.objects.get()
        assert (row.account, str(row.address)) == ("kim", HERE)
        event = AuditEvent.objects.get(action="session.refused")
        assert (event.actor, event.outcome, event.details["user"]) == (None, "denied", "kim")
        failed(PER_ACCOUNT, "kim")
        with pytest.raises(TooManyAttempts):
            confirm_password(kim, "dock-side-pass")
    robot = User.objects.create(username="shop+ci", kind=User.Kind.ROBOT)
    for actor in (robot, system_user()):
        with pytest.raises(NotPermitted, match="Only people"):
            confirm_password(actor, "x")
