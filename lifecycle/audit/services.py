"""Writes audit events. No other code writes to the audit log."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson
from django.db import connection, transaction
from django.db.models import Model
from django.db.models.functions import Now

from accounts.models import Team, User
from lifecycle import events
from lifecycle.audit.actions import Action
from lifecycle.audit.details import Details
from lifecycle.audit.details_of_access import AccessRefused
from lifecycle.audit.details_of_actions import DETAILS_OF
from lifecycle.audit.models import AuditEvent
from lifecycle.core import context
from lifecycle.core.errors import LifecycleError, NotFound, NotPermitted

if TYPE_CHECKING:
    from datetime import datetime

    from lifecycle.environments.models import Environment
    from lifecycle.registry.models import Image, Repository

_REFUSAL_ONCE_IN: Final = timedelta(minutes=1)
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def record(
    action: Action,
    *,
    actor: User | None,
    subject: Model | None = None,
    outcome: str = AuditEvent.Outcome.OK,
    reason: str = "",
    team: Team | None = None,
    repository: Repository | None = None,
    environment: Environment | None = None,
    image: Image | None = None,
    details: Details | None = None,
) -> AuditEvent:
    """Append one event in the caller's transaction, and return it.

    Actor, time and address are set by the server, never by the client. A rollback of the caller removes the event.
    Raises RuntimeError outside a transaction, because an event and its change must be committed together. Raises
    TypeError when `details` are not of the class that DETAILS_OF lists for the action.
    """
    expected = DETAILS_OF.get(action)
    if (type(details) if details is not None else None) is not expected:
        name = expected.__name__ if expected else "no details"
        raise TypeError(f"{action} takes {name}, not {type(details).__name__}.")
    if not connection.in_atomic_block:
        raise RuntimeError("audit.record was called outside a transaction")
    request = context.current()
    at = _database_time()
    event = AuditEvent(
        at=at,
        action=action.value,
        outcome=outcome,
        actor=actor,
        actor_name=actor.username if actor else "",
        token_lookup=request.token_lookup,
        address=request.address,
        request_id=request.request_id,
        team=team or (repository.team if repository else None) or (environment.team if environment else None),
        subject_kind=subject._meta.model_name or "" if subject is not None else "",
        subject_id=subject.pk if subject is not None else None,
        digest=image.digest if image else "",
        repository=repository.name if repository else "",
        environment=environment.slug if environment else "",
        reason=reason,
        details=details.as_json() if details is not None else {},
    )
    event.canonical = _canonical(event)
    event.save(force_insert=True)
    events.publish(
        events.AuditRecorded(
            event_id=event.pk,
            action=event.action,
            subject_kind=event.subject_kind,
            subject_id=event.subject_id,
            actor_id=event.actor_id,
            reason=event.reason,
        )
    )
    return event


def record_refusal(actor: Any, error: LifecycleError, *, method: str, path: str) -> None:
    """Record that a signed-in user tried to change something without the permission to change or see it.

    Uses its own transaction, because the transaction of the action was rolled back. The same attempt is recorded at
    most once a minute, so that a script in a loop does not fill the audit log.
    """
    is_refusal = isinstance(error, (NotFound, NotPermitted))
    if not is_refusal or method in _SAFE_METHODS or not isinstance(actor, User):
        return
    attempt = AccessRefused(method=method, path=path[:300], code=error.error_code)
    same = AuditEvent.objects.filter(
        actor_name=actor.username,
        action=Action.ACCESS_REFUSED.value,
        at__gt=Now() - _REFUSAL_ONCE_IN,
        details=attempt.as_json(),
    )
    with transaction.atomic():
        if not same.exists():
            record(
                Action.ACCESS_REFUSED,
                actor=actor,
                outcome=AuditEvent.Outcome.DENIED,
                reason=error.message,
                details=attempt,
            )


def _database_time() -> datetime:
    """Return the current time by the database's clock, which all processes share."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (at,) = cursor.fetchone()
    moment: datetime = at
    return moment


def _canonical(event: AuditEvent) -> bytes:
    """Return the bytes that will be sealed: the event as JSON with sorted keys and no white space."""
    return orjson.dumps(
        {
            "schema": 1,
            "at": event.at.isoformat(),
            "action": event.action,
            "outcome": event.outcome,
            "actor_id": event.actor_id,
            "actor": event.actor_name,
            "token": event.token_lookup,
            "address": event.address,
            "request_id": event.request_id,
            "team_id": event.team_id,
            "subject": {"kind": event.subject_kind, "id": event.subject_id},
            "digest": event.digest,
            "repository": event.repository,
            "environment": event.environment,
            "reason": event.reason,
            "details": event.details,
        },
        option=orjson.OPT_SORT_KEYS,
    )
