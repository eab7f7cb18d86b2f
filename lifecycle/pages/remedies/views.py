"""What to do about open findings: the list of remedies, and one remedy with its images and advisories."""

from __future__ import annotations

import re
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from lifecycle.advisories.exploits import exploit_feeds
from lifecycle.authority.queries import environments_visible_to, teams_visible_to
from lifecycle.core import clock
from lifecycle.core.errors import NotFound
from lifecycle.core.severities import CRITICAL, HIGH, LOW, MEDIUM
from lifecycle.pages.requests import chosen, reader
from lifecycle.remedies.models import Remedy, RemedyPass
from lifecycle.remedies.queries import (
    FORMULA,
    GROUPS_MAX,
    Choice,
    closed_by,
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
    (Remedy.Kind.WAIT.value, "Waits for its base"),
    (Remedy.Kind.NONE.value, "No fix yet"),
)


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
        "is_filtered": any((choice.team, environment, choice.kind, choice.severity, choice.exploited, choice.overdue)),
        "formula": FORMULA,
        "now": clock.now(),
        "unknown_images": unknown_images(user, team=choice.team),
        "feeds": exploit_feeds(),
        "looked_at": RemedyPass.objects.order_by("-pk").values_list("looked_at", flat=True).first(),
    }
    return render(request, "lifecycle/remedies/fixes.html", context)


@require_safe
def fix(request: HttpRequest, key: str) -> HttpResponse:
    """Show one remedy: its images, where they run, and the advisories that it closes."""
    user = reader(request)
    groups = groups_for(user, Choice(key=key)).groups if _KEY.fullmatch(key) else []
    if not groups:
        raise NotFound("This remedy is not needed any more, or you cannot see its images. Look at the list of fixes.")
    rows = list(rows_of(user, key)[: _IMAGES_MAX + 1])
    advisories = closed_by(rows)
    slots = slots_of(user, [row.repository_id for row in rows])
    context = {
        "group": groups[0],
        "now": clock.now(),
        "rows": [(row, slots.get(row.repository_id, [])) for row in rows[:_IMAGES_MAX]],
        "has_more_images": len(rows) > _IMAGES_MAX,
        "advisories": advisories[:_ADVISORIES_MAX],
        "advisory_count": len(advisories),
    }
    return render(request, "lifecycle/remedies/fix.html", context)
