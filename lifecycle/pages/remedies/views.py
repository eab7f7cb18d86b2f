"""What to do about open findings: the list of remedies, and one remedy with its images and advisories."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from lifecycle.advisories.exploits import exploit_feeds
from lifecycle.authority.queries import environments_visible_to, teams_visible_to
from lifecycle.core import clock
from lifecycle.core.errors import NotFound
from lifecycle.core.severities import CRITICAL, HIGH, LOW, MEDIUM
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.remedies.forms import AssignForm, CommentForm, SnoozeForm
from lifecycle.pages.requests import chosen, reader
from lifecycle.remedies import teamwork
from lifecycle.remedies.access import share_for
from lifecycle.remedies.models import Remedy, RemedyPass
from lifecycle.remedies.queries import (
    ALL,
    ASSIGNED,
    FORMULA,
    GROUPS_MAX,
    MINE,
    ONLY,
    UNASSIGNED,
    Choice,
    Group,
    closed_by,
    comments_on,
    environment_called,
    groups_for,
    rows_of,
    slots_of,
    unknown_images,
)

_KEY: Final = re.compile(r"[0-9a-f]{16}")
_IMAGES_MAX: Final = 200
_ADVISORIES_MAX: Final = 200
_KINDS: Final = (
    (Remedy.Kind.REBUILD.value, "Rebuild"),
    (Remedy.Kind.UPGRADE.value, "Upgrade"),
    (Remedy.Kind.PROMOTE.value, "Promote"),
    (Remedy.Kind.WAIT.value, "Waits for its base"),
    (Remedy.Kind.NONE.value, "No fix yet"),
)
_WHO: Final = ((MINE, "Assigned to me or my teams"), (ASSIGNED, "Assigned"), (UNASSIGNED, "Assigned to nobody"))
_SNOOZED: Final = ((ONLY, "Only snoozed"), (ALL, "Also snoozed"))
_DONE: Final = {
    "assign": "Assignment saved.",
    "snooze": "Snoozed. It comes back by itself, and at once if it becomes known to be exploited.",
    "wake": "Snooze ended.",
    "comment": "Comment added.",
}


@require_safe
def fixes(request: HttpRequest) -> HttpResponse:
    """List the remedies of images the reader can see, most useful first."""
    user = reader(request)
    teams = list(teams_visible_to(user).order_by("slug").values_list("slug", flat=True))
    places = list(environments_visible_to(user).order_by("team__slug", "position"))
    names = [f"{place.team.slug}/{place.slug}" for place in places]
    environment = chosen(request, "environment", names)
    choice = Choice(
        team=chosen(request, "team", teams),
        environment=environment_called(user, environment) if environment else None,
        kind=chosen(request, "kind", Remedy.Kind.values),
        severity=chosen(request, "severity", (CRITICAL, HIGH, MEDIUM, LOW)),
        exploited=bool(chosen(request, "exploited", ("1",))),
        overdue=bool(chosen(request, "overdue", ("1",))),
        who=chosen(request, "who", [value for value, _ in _WHO]),
        snoozed=chosen(request, "snoozed", [value for value, _ in _SNOOZED]),
    )
    found = groups_for(user, choice)
    context = {
        "found": found,
        "limit": GROUPS_MAX,
        "choice": choice,
        "environment": environment,
        "teams": teams,
        "environments": names,
        "kinds": _KINDS,
        "severities": (CRITICAL, HIGH, MEDIUM, LOW),
        "who": _WHO,
        "snoozed": _SNOOZED,
        "is_filtered": choice != Choice(),
        "formula": FORMULA,
        "now": clock.now(),
        "unknown_images": unknown_images(user, team=choice.team),
        "feeds": exploit_feeds(),
        "looked_at": RemedyPass.objects.order_by("-pk").values_list("looked_at", flat=True).first(),
    }
    return render(request, "lifecycle/remedies/fixes.html", context)


@require_safe
def fix(request: HttpRequest, key: str) -> HttpResponse:
    """Show one remedy: its images, where they run, the advisories that it closes, and what teams do about it."""
    return _page(request, _group(request, key), {})


def _group(request: HttpRequest, key: str) -> Group:
    groups = groups_for(reader(request), Choice(key=key, snoozed=ALL)).groups if _KEY.fullmatch(key) else []
    if not groups:
        raise NotFound("This remedy is not needed any more, or you cannot see its images. Look at the list of fixes.")
    return groups[0]


def _page(request: HttpRequest, group: Group, forms: dict[str, Any], *, status: int = 200) -> HttpResponse:
    user = reader(request)
    rows = list(rows_of(user, group.key)[: _IMAGES_MAX + 1])
    advisories = closed_by(rows)
    slots = slots_of(user, [row.repository_id for row in rows])
    # With several teams, the service says it for the team that is chosen.
    is_one = len(group.teams) == 1
    why_not = teamwork.why_not_assign(user, share_for(user, group.key, group.teams[0])) if is_one else None
    context = {
        "group": group,
        "now": clock.now(),
        "rows": [(row, slots.get(row.repository_id, [])) for row in rows[:_IMAGES_MAX]],
        "has_more_images": len(rows) > _IMAGES_MAX,
        "advisories": advisories[:_ADVISORIES_MAX],
        "advisory_count": len(advisories),
        "comments": comments_on(group.work),
        "assign": AssignForm(teams=group.teams, auto_id="assign_%s"),
        "snooze": SnoozeForm(teams=group.teams, auto_id="snooze_%s"),
        "comment": CommentForm(teams=group.teams, auto_id="comment_%s"),
        "why_not": why_not,
        "is_put_off": any(work.is_snoozed for work in group.work),
    }
    return render(request, "lifecycle/remedies/fix.html", context | forms, status=status)


@require_POST
def act(request: HttpRequest, key: str, act: str) -> HttpResponse:
    """Assign a remedy, put it off, end that, or write a comment."""
    group, user = _group(request, key), reader(request)
    kind, name = {"assign": (AssignForm, "assign"), "comment": (CommentForm, "comment")}.get(
        act, (SnoozeForm, "snooze")
    )
    form = kind(request.POST, teams=group.teams, auto_id=f"{name}_%s")
    if form.is_valid():
        given = form.cleaned_data
        with errors_shown_on(form, {"assign": "person", "comment": "text"}.get(act, "days")):
            if act == "assign":
                teamwork.assign(
                    key,
                    actor=user,
                    team=given["team"],
                    person=given["person"].strip(),
                    to_team=given["to_team"].strip(),
                )
            elif act == "snooze":
                until = clock.now() + timedelta(days=given["days"]) if given["days"] else None
                teamwork.snooze(
                    key, actor=user, team=given["team"], until=until, until_fix=given["until_fix"],
                    reason=given["reason"],
                )  # fmt: skip
            elif act == "wake":
                teamwork.wake(key, actor=user, team=given["team"])
            else:
                teamwork.comment(key, actor=user, team=given["team"], text=given["text"])
            messages.success(request, _DONE[act])
            return redirect("lifecycle:fix", key)
    return _page(request, group, {name: form, "form": form}, status=422)
