"""How open findings changed: a drawing, and the same numbers as a table."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.verbs import Verb
from lifecycle.authority.queries import teams_where
from lifecycle.core import clock
from lifecycle.pages.requests import chosen, reader
from lifecycle.trends.queries import DAYS, series_for


@require_safe
def trends(request: HttpRequest) -> HttpResponse:
    """Show the trend of a repository (`?repository=`), a team, or all teams that the reader sees as a whole."""
    user = reader(request)
    teams = list(teams_where(user, Verb.IMAGE_VIEW).order_by("slug").values_list("slug", flat=True))
    team = chosen(request, "team", teams)
    repository = request.GET.get("repository", "")[:255]
    days = int(chosen(request, "days", [str(number) for number in DAYS]) or DAYS[1])
    series = series_for(user, clock.now().date(), team=team, repository=repository, days=days)
    context = {
        "series": series,
        "rows": series.points[::-1],
        "last": series.points[-1] if series.points else None,
        "first": series.points[0] if series.points else None,
        "team": team,
        "teams": teams,
        "repository": repository,
        "days": days,
        "choices": DAYS,
    }
    return render(request, "lifecycle/trends/trends.html", context)
