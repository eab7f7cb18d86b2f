"""Freeze and allow windows: set and remove them, and ask whether a promotion may run now."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_promotion import WindowDetails
from lifecycle.core import clock
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.core.reasons import refuse_if
from lifecycle.environments.models import Environment, PromotionWindow
from lifecycle.policy.windows import Kind, Opening, Window, WindowProblem, check, state_at
from lifecycle.promotion.models import PromotionRequest, ReleaseSet
from lifecycle.promotion.places import applies_to, judge_again, place_of, seen_by, why_not_at

WINDOWS_MAX: Final = 50  # at one place


def windows_of(environment: Environment) -> QuerySet[PromotionWindow]:
    """Return the windows of the site, the team and the environment that apply to an environment."""
    return PromotionWindow.objects.filter(applies_to(environment)).select_related("team", "environment").order_by("pk")


def windows_visible_to(actor: User) -> QuerySet[PromotionWindow]:
    """Return the windows that `actor` can see, with their place and creator."""
    rows = PromotionWindow.objects.filter(seen_by(actor))
    return rows.select_related("team", "environment", "created_by")


def as_window(row: PromotionWindow) -> Window:
    """Return a row as the policy reads it."""
    return Window(
        name=row.name,
        kind=Kind(row.kind),
        level=row.level,
        starts=datetime.fromisoformat(row.starts_at),
        duration=timedelta(seconds=row.duration_s),
        zone=row.time_zone,
        rule=row.rule,
    )


def opening_of(environment: Environment, *, kind: str = PromotionRequest.Kind.FORWARD) -> Opening:
    """Return whether promotions of a kind may run in an environment now, and when they may next.

    Break-glass ignores windows. A rollback ignores those that allow it.
    """
    if kind == PromotionRequest.Kind.BREAK_GLASS:
        return Opening(True)
    rows = windows_of(environment)
    if kind == PromotionRequest.Kind.ROLLBACK:
        rows = rows.filter(allows_rollback=False)
    return state_at([as_window(row) for row in rows], clock.now())


def opening_for(request: PromotionRequest) -> Opening:
    """Return whether a request may run now, as `opening_of`."""
    return opening_of(request.environment, kind=request.kind)


def wait_for_window(row: PromotionRequest | ReleaseSet) -> None:
    """Move the end of a ready request or set behind a closed window, once: it keeps the time that it had left.

    Nothing moves for a member of a set: it has no end of its own.
    """
    if row.window_paused_at is not None or row.execute_by is None:
        return
    kind = row.kind if isinstance(row, PromotionRequest) else PromotionRequest.Kind.FORWARD
    opening, moment = opening_of(row.environment, kind=kind), clock.now()
    if opening.opens_at is not None and row.execute_by > moment:
        row.execute_by, row.window_paused_at = opening.opens_at + (row.execute_by - moment), moment
        row.save(update_fields=["execute_by", "window_paused_at"])


def closed_words(opening: Opening) -> str:
    """Return why nothing may run now and when it opens, in sentences; "" when open."""
    if opening.is_open:
        return ""
    if opening.opens_at is None:
        return f"Waiting. {opening.why} No opening is planned."
    return f"Waiting, opens at {opening.opens_at:%Y-%m-%d %H:%M} UTC. {opening.why}"


@transaction.atomic
def create_window(
    *,
    actor: User,
    name: str,
    kind: str,
    starts_at: str,
    duration_s: int,
    time_zone: str,
    rule: str = "",
    allows_rollback: bool = True,
    team: str = "",
    environment: str = "",
) -> PromotionWindow:
    """Set a window for the site, a team or an environment. It applies at once, also to requests that are ready.

    Raises NotFound, NotPermitted, or Malformed with what is wrong with the window.
    """
    team_row, environment_row = place_of(actor, team=team, environment=environment)
    refuse_if(why_not_at(actor, team_row, environment_row))
    name = name.strip()
    if not 1 <= len(name) <= 120 or "\0" in name or kind not in PromotionWindow.Kind.values:
        raise Malformed("A window needs a name of up to 120 characters, and the kind freeze or allow.")
    row = PromotionWindow(
        team=team_row, environment=environment_row, name=name, kind=kind, starts_at=_local(starts_at),
        duration_s=duration_s, time_zone=time_zone, rule=rule.strip(), allows_rollback=allows_rollback,
        created_by=actor,
    )  # fmt: skip
    try:
        check(as_window(row))
    except WindowProblem as problem:
        raise Malformed(str(problem)) from None
    if PromotionWindow.objects.filter(team=team_row, environment=environment_row).count() >= WINDOWS_MAX:
        raise Malformed(f"There are already {WINDOWS_MAX} windows here. Remove those that are over.")
    row.save()
    _record(Action.WINDOW_CREATED, row, actor, WindowDetails(**_values(row)))
    judge_again(row.team, row.environment)
    return row


@transaction.atomic
def delete_window(window_id: int, *, actor: User) -> None:
    """Remove a window. Raises NotFound, NotPermitted."""
    row = windows_visible_to(actor).select_for_update(of=("self",)).filter(pk=window_id).first()
    if row is None:
        raise NotFound("Window not found, or you don't have access.")
    refuse_if(why_not_at(actor, row.team, row.environment))
    _record(Action.WINDOW_DELETED, row, actor, WindowDetails(**_values(row)))
    row.delete()


def _local(text: str) -> str:
    """Return a local time in the stored form; raises Malformed, also for a time with an offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("Write the start as 2026-11-26T16:00, in the window's own time zone.") from None
    if moment.tzinfo is not None:
        raise Malformed("Write the start without an offset: it is a time of the window's own time zone.")
    return moment.isoformat(timespec="seconds")[:19]


def _values(row: PromotionWindow) -> dict[str, Any]:
    names = ("name", "kind", "starts_at", "duration_s", "time_zone", "rule")
    return {name: getattr(row, name) for name in names} | {"place": row.place_words}


def _record(action: Action, row: PromotionWindow, actor: User, details: WindowDetails) -> None:
    audit.record(action, actor=actor, subject=row, team=row.team, environment=row.environment, details=details)
