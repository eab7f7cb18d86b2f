"""Browser sessions as rows that know their user: they can be listed and ended, and end by themselves.

A session ends SESSION_IDLE_HOURS after its last use, and SESSION_MAX_HOURS after its sign-in. Django's engine makes no
difference between the two, and cannot find the sessions of a user. One that began with single sign-on ends
SSO_SESSION_MAX_HOURS after the provider last confirmed the person: only then it can say that the person is gone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from allauth.account.internal.flows.login import AUTHENTICATION_METHODS_SESSION_KEY
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db.models import Q, QuerySet

from accounts.models import User
from lifecycle.authority.models import BrowserSession
from lifecycle.authority.second_factors import owes_factor
from lifecycle.core import clock, context

SEEN_EVERY: Final = timedelta(minutes=1)  # one write per request would cost more than the page


class SessionStore(DatabaseStore):
    """The session of one browser. Its row also has the user, the address and the client."""

    row: BrowserSession | None = None  # as it was loaded
    # Whether the person must set up a second factor before anything else, as of the load: no query of its own.
    owes_second_factor = False

    @classmethod
    def get_model_class(cls) -> type[BrowserSession]:
        return BrowserSession

    def load(self) -> dict[str, Any]:
        """Return the content, and note the use of a session that lives; {} for any other."""
        rows = live_sessions().filter(session_key=self.session_key).annotate(owes_factor=owes_factor("user_id"))
        row = rows.first() if self.session_key else None
        if row is None:
            self._session_key = None
            return {}
        self.row, self.owes_second_factor = row, row.owes_factor
        self._note_use(row)
        return self.decode(row.session_data)

    def _note_use(self, row: BrowserSession) -> None:
        now = clock.now()
        if now - row.last_seen_at < SEEN_EVERY:
            return
        request = context.current()
        row.last_seen_at, row.address, row.client = now, request.address, request.client
        changed = {"last_seen_at": now, "address": row.address, "client": row.client}
        BrowserSession.objects.filter(pk=row.pk, last_seen_at__lt=now - SEEN_EVERY).update(**changed)

    def create_model_instance(self, data: dict[str, Any]) -> BrowserSession:
        row = cast(BrowserSession, super().create_model_instance(data))
        old = self.row if self.row is not None and self.row.pk == row.pk else None
        request, now = context.current(), clock.now()
        row.user_id = int(data[SESSION_KEY]) if SESSION_KEY in data else None
        row.address, row.client, row.last_seen_at = request.address, request.client, now
        # A sign-in changes the key, so that the time begins anew with it.
        row.created_at = old.created_at if old is not None else now
        if old is not None:
            row.public_id = old.public_id
        row.provider_at = _confirmed_by_provider(data)
        self.row = row
        return row

    @classmethod
    def clear_expired(cls) -> None:
        """Delete the sessions that have ended."""
        BrowserSession.objects.exclude(_lives()).delete()


def _confirmed_by_provider(data: dict[str, Any]) -> datetime | None:
    """Return when a provider last confirmed the person of a session; None if the person signed in with a password.

    A proof with a password in the session of a provider does not make it longer: the account may be gone there.
    """
    proofs = data.get(AUTHENTICATION_METHODS_SESSION_KEY, [])
    first = next((proof.get("method") for proof in proofs if proof.get("method") in {"password", "sso"}), "")
    times = [float(proof.get("at", 0)) for proof in proofs if proof.get("method") == "sso"]
    return datetime.fromtimestamp(max(times), UTC) if first == "sso" else None


def live_sessions() -> QuerySet[BrowserSession]:
    """Return the sessions that have not ended: used lately, and signed in not too long ago."""
    return BrowserSession.objects.filter(_lives())


def sessions_of(user: User) -> QuerySet[BrowserSession]:
    """Return the live sessions of a user, the one used last first."""
    return live_sessions().filter(user=user).order_by("-last_seen_at", "public_id")


def _lives() -> Q:
    now = clock.now()
    confirmed = Q(provider_at=None) | Q(provider_at__gt=now - timedelta(hours=settings.SSO_SESSION_MAX_HOURS))
    return confirmed & Q(
        expire_date__gt=now,
        last_seen_at__gt=now - timedelta(hours=settings.SESSION_IDLE_HOURS),
        created_at__gt=now - timedelta(hours=settings.SESSION_MAX_HOURS),
    )
