"""`/compare/<a>...<b>/`: the changes from one image to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from lifecycle.authority.access import image_for
from lifecycle.authority.queries import repositories_open_to
from lifecycle.comparison.queries import compare
from lifecycle.comparison.types import Comparison, FindingLine, PackageLine, PlatformPair
from lifecycle.pages.requests import reader
from lifecycle.pages.templatetags.gravingdock import size
from lifecycle.registry.queries import locations_of
from lifecycle.search.queries import image_named

_TABS: Final = ("findings", "packages", "layers", "configuration")
_REFERENCE_MAX: Final = 400  # characters of a reference that a reader types
_LINES_FIRST: Final = 25  # rows of one table until the reader asks for all
_LINES_MAX: Final = 300  # rows of one table; the API returns all of them


@dataclass(frozen=True, slots=True)
class Section:
    """A tab of the panel: its name, its value in the address (None for the first one), and its number of changes."""

    name: str
    query: str | None
    count: int | str  # "?" while the packages of one image are unknown


def panel_context(request: HttpRequest, shown: Comparison) -> dict[str, Any]:
    """Return the context of `_panel.html`: the tab and rows of a comparison that `?tab=` and `?same=1` select."""
    tab = request.GET.get("tab", "")
    tab = tab if tab in _TABS else _TABS[0]
    shows_same = request.GET.get("same") == "1"
    limit = _LINES_MAX if request.GET.get("all") == "1" else _LINES_FIRST
    lines: Sequence[FindingLine | PackageLine] = ()
    if tab == "findings":
        lines = shown.findings if shows_same else shown.changed_findings
    elif tab == "packages":
        lines = shown.packages
    changes = shown.advisories
    advisories = len(changes.fixed) + len(changes.new) + len(changes.unknown)
    counts = (advisories, len(shown.packages)) if shown.is_known else ("?", "?")
    return {
        "comparison": shown,
        "tab": tab,
        "sections": [
            Section(name, None if name == _TABS[0] else name, count)
            for name, count in zip(_TABS, (*counts, shown.new_layer_count, shown.settings_count), strict=True)
        ],
        "waits_for_scan": tab in ("findings", "packages") and not shown.is_known,
        "shows_same": shows_same,
        "lines": lines[:limit],
        "left_out": max(0, len(lines) - _LINES_MAX),
        "folded": len(lines) if limit == _LINES_FIRST and len(lines) > _LINES_FIRST else 0,
        "bars": [(pair, _bar(pair)) for pair in shown.platforms if pair.layers] if tab == "layers" else (),
    }


def _bar(pair: PlatformPair) -> list[tuple[str, str, int]]:
    """Return the layers of one platform as the parts of a bar, base first."""
    return [
        ("shared" if layer.is_shared else "own", size(layer.size_bytes), max(layer.size_bytes, 1))
        for layer in pair.layers
    ]


@require_safe
def choose(request: HttpRequest) -> HttpResponse:
    """Show the form that names two images, or redirect to their comparison (`?from=&to=`).

    Each is a digest (also short), `repository:tag`, `repository@digest`, or a tag of the repository in `?repository=`.
    """
    user = reader(request)
    names = {name: request.GET.get(name, "").strip()[:_REFERENCE_MAX] for name in ("from", "to", "other")}
    other = names["other"] or names["to"]  # the text field wins over the list of tags
    problem = ""
    if names["from"] and other:
        visible, near = repositories_open_to(user), request.GET.get("repository", "")[:_REFERENCE_MAX]
        images = [image_named(user, visible, text, near=near) for text in (names["from"], other)]
        missing = [text for text, image in zip((names["from"], other), images, strict=True) if image is None]
        if images[0] is not None and images[1] is not None:
            return redirect("lifecycle:comparison", images[0].digest, images[1].digest)
        problem = f"{missing[0]}: not found, or you don't have access. Enter a digest or repository:tag."
    context = {"first": names["from"], "second": other, "problem": problem}
    return render(request, "lifecycle/comparison/choose.html", context, status=422 if problem else 200)


@require_safe
def comparison(request: HttpRequest, before: str, after: str) -> HttpResponse:
    """Compare two images that the reader can see. Raises NotFound for other digests."""
    user = reader(request)
    first, second = image_for(user, before), image_for(user, after)
    locations = locations_of([first.pk, second.pk], repositories_open_to(user))
    context = panel_context(request, compare(first, second)) | {
        "before_place": locations.get(first.pk),
        "after_place": locations.get(second.pk),
    }
    return render(request, "lifecycle/comparison/comparison.html", context)
