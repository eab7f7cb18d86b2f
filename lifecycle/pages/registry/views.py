"""The repository and image pages. They only read; changes have their own pages elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Max, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.access import image_in, repository_of
from lifecycle.authority.queries import images_visible_to, repositories_visible_to
from lifecycle.authority.rights import may
from lifecycle.authority.services.teams import is_above_grants
from lifecycle.core.paging import keyset_page
from lifecycle.core.severities import COUNTED
from lifecycle.environments.models import Slot
from lifecycle.lineage.models import Derivation
from lifecycle.pages.lineage.page_queries import EVIDENCE_WORDS, levels_below
from lifecycle.pages.promotion.page_queries import targets_for, why_not_promotable
from lifecycle.pages.rebuild.page_queries import Counts, counts_of, plan_offer, rebuilt_as, tags_to_choose, waves_about
from lifecycle.pages.registry import page_queries
from lifecycle.pages.registry.findings import LayerShare, findings_by_layer, findings_of, unknown_findings_of
from lifecycle.pages.registry.packages import packages_of
from lifecycle.pages.requests import cursors, reader
from lifecycle.promotion.models import PromotionRequest
from lifecycle.rebuild.models import Recipe
from lifecycle.rebuild.queries import builder_permit_of, current_recipe, watches_of
from lifecycle.rebuild.refusals import why_not_build
from lifecycle.registry.models import Image, Layer, Repository
from lifecycle.registry.queries import Location, given_by_people, locations_of
from lifecycle.sbom.models import Sbom

_REPOSITORY_TABS: Final = ("tags", "recipe", "rebuilds", "history")
_WATCHABLE_MAX: Final = 100  # number of tags to choose from, last moved first
_SEARCH_MAX: Final = 200  # characters; a repository's name is shorter than 255


@dataclass(frozen=True, slots=True)
class BaseLine:
    """A base of the image, with its evidence and its lag."""

    derivation: Derivation
    place: Location | None
    lag: page_queries.Lag | None
    evidence: str
    layer_count: int  # number of the image's first layers that come from the base


@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """Redirect to the inbox."""
    return HttpResponseRedirect(reverse("lifecycle:inbox"))


@require_safe
def images(request: HttpRequest) -> HttpResponse:
    """List the repositories that the reader can see, last updated first, each with its latest tag."""
    visible = repositories_visible_to(reader(request))
    text, team = request.GET.get("q", "").strip()[:_SEARCH_MAX], request.GET.get("team", "")
    rows = page_queries.repositories_with_latest(visible)
    if text:
        rows = rows.filter(Q(name__icontains=text) | Q(description__icontains=text))
    if team:
        rows = rows.filter(team__slug=team)
    page = keyset_page(rows, ("-updated_at", "-id"), **cursors(request))
    page_queries.add_latest_tags(page.rows)
    context = {
        "page": page,
        "teams": Team.objects.filter(pk__in=visible.values("team")).order_by("slug"),
        "q": text,
        "team": team,
    }
    return render(request, "lifecycle/registry/images.html", context)


@require_safe
def repository(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Show one repository: its tags with pull commands, its recipe, its rebuilds, and the history of its tags."""
    user = reader(request)
    row = repository_of(repositories_visible_to(user), team, name)
    tab = request.GET.get("tab", "tags")
    tab = tab if tab in _REPOSITORY_TABS else "tags"
    context: dict[str, Any] = {
        "repository": row,
        "tab": tab,
        "recipe": current_recipe(row),
        "plan": plan_offer(user, row),
        "is_empty": not page_queries.tags_of(row).exists(),
        "may_push": may(user, Verb.IMAGE_CREATE, repository=row) if row.environment_id is None else None,
    }
    if tab == "tags":
        context["why_not_promotable"] = why_not_promotable(user, row)
        tags, shows_own = page_queries.tags_of(row), request.GET.get("own") == "yes"
        people = given_by_people(tags)
        context["own_tags"] = tags.count() - people.count()
        context["shows_own"] = shows_own
        context["page"] = keyset_page(tags if shows_own else people, ("-updated_at", "-id"), **cursors(request))
    elif tab == "history":
        context["page"] = keyset_page(page_queries.tag_history(row), ("-id",), **cursors(request))
    elif tab == "recipe":
        context |= _recipe_tab(request, row, context["recipe"])
    elif tab == "rebuilds":
        context |= _rebuilds_tab(request, row)
    return render(request, "lifecycle/registry/repository.html", context)


def _recipe_tab(request: HttpRequest, repository: Repository, current: Recipe | None) -> dict[str, Any]:
    """Return the revision in `?revision=` (else the current one), all revisions, and whether the reader can add one."""
    rows = Recipe.objects.filter(repository=repository).select_related("author")
    number = request.GET.get("revision", "")
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    shown = rows.filter(revision=int(number)).first() if is_number else None
    permit = builder_permit_of(repository)
    return {
        "shown": shown or current,
        "page": keyset_page(rows, ("-revision",), **cursors(request), size=20),
        "may_store": may(reader(request), Verb.RECIPE_MANAGE, repository=repository),
        "builder_permit": permit,
        "why_not_build": None if permit else why_not_build(repository),
        "switches_builder": is_above_grants(reader(request)),
    }


def _rebuilds_tab(request: HttpRequest, repository: Repository) -> dict[str, Any]:
    """Return the waves about this repository, its watches, and whether the reader can add a watch."""
    user = reader(request)
    page = keyset_page(waves_about(repository, user), ("-id",), **cursors(request), size=20)
    counts = counts_of([wave.pk for wave in page.rows], repositories_visible_to(user))
    return {
        "page": page,
        "entries": [(wave, counts.get(wave.pk, Counts())) for wave in page.rows],
        "watches": watches_of(repository).order_by("tag"),
        "tag_names": tags_to_choose(repository)
        .order_by("-updated_at", "-id")
        .values_list("name", flat=True)[:_WATCHABLE_MAX],
        "may_watch": may(user, Verb.IMAGE_REBUILD, repository=repository),
    }


@require_safe
def image(request: HttpRequest, team: str, name: str, digest: str) -> HttpResponse:
    """Show one image. For an index, show the platform manifest with the digest in `?platform=`, else the first one."""
    user = reader(request)
    visible = repositories_visible_to(user)
    row = repository_of(visible, team, name)
    member = image_in(row, digest)
    entries = page_queries.entries_of(member.image)
    chosen = next((entry.child for entry in entries if entry.child.digest == request.GET.get("platform")), None)
    shown = chosen or (entries[0].child if entries else member.image)
    tab = request.GET.get("tab", "overview")
    tab = tab if tab in _IMAGE_TABS else "overview"
    layers = page_queries.layers_of(shown)
    bases = _bases(shown, visible, user)
    shares = findings_by_layer(shown) if shown.scanned_at else []
    context: dict[str, Any] = {
        "repository": row,
        "member": member,
        "top": member.image,  # the image in the URL: an index or a platform manifest
        "image": shown,
        "entries": entries,
        "tab": tab,
        "tags": given_by_people(page_queries.tags_of(row).filter(image=member.image)).order_by("-updated_at"),
        "layers": layers,
        "bases": bases,
        "slots": Slot.objects.filter(image__in={member.image.pk, shown.pk}, repository__in=visible).select_related(
            "environment", "repository"
        ),
        "promotions": PromotionRequest.objects.filter(image=member.image, repository__in=visible)
        .select_related("environment", "source_environment", "requested_by", "repository")
        .order_by("-id")[:50],
        "who_can_fix": _who_can_fix(shares, bases, row.name),
        "why_not_promotable": why_not_promotable(user, row),
        "plan": plan_offer(user, row, member.image),
        "rebuilt": rebuilt_as(row, member.image, user),
    }
    context |= _IMAGE_TABS[tab](request, context)
    return render(request, "lifecycle/registry/image.html", context)


def _bases(image: Image, visible: Any, user: User) -> list[BaseLine]:
    """Return up to 5 bases of `image` that the reader can see, the one with the most layers first, with their lag."""
    edges = list(
        Derivation.objects.filter(derived=image, base__in=images_visible_to(user))
        .select_related("base")
        .order_by("-base__layer_count", "id")[:5]
    )
    locations = locations_of([edge.base_id for edge in edges], visible)
    return [
        BaseLine(
            edge,
            locations.get(edge.base_id),
            page_queries.lag_of(edge.base, visible),
            ", ".join(EVIDENCE_WORDS.get(kind, kind) for kind in edge.evidence),
            edge.base.layer_count if Derivation.Evidence.LAYERS in edge.evidence else 0,
        )
        for edge in edges
    ]


def _base_layer_count(bases: list[BaseLine]) -> int:
    return max((base.layer_count for base in bases), default=0)


def _who_can_fix(shares: list[LayerShare], bases: list[BaseLine], own: str) -> dict[str, Any]:
    """Return the parts of the who-can-fix bar: findings from the base, from the image itself, and of unknown origin."""
    depth = _base_layer_count(bases)
    name = next((base.place.repository.name for base in bases if base.place and base.layer_count), "the base image")
    inherited = sum(
        share.count for share in shares if share.layer_position is not None and share.layer_position < depth
    )
    unplaced = sum(share.count for share in shares if share.layer_position is None)
    mine = sum(share.count for share in shares) - inherited - unplaced
    parts = [("base", f"{inherited} {name}", inherited), ("own", f"{mine} {own}", mine)]
    parts.append(("unknown", f"{unplaced} layer unknown", unplaced))
    return {
        "total": inherited + mine + unplaced,
        "parts": [part for part in parts if part[2]],
        "inherited": inherited,
        "mine": mine,
        "unplaced": unplaced,
        "base": name,
    }


def _overview_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the creation time of the image's latest SBOM."""
    return {"newest_sbom_at": Sbom.objects.filter(image=context["image"]).aggregate(at=Max("created_at"))["at"]}


def _lineage_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of images that are built on the image, level by level."""
    return {"levels": levels_below(context["image"], repositories_visible_to(reader(request)))}


def _packages_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the packages, filtered by name with `?q=`, each with the layer and repository that it comes from."""
    contents = packages_of(context["image"])
    text = request.GET.get("q", "").strip()[:_SEARCH_MAX]
    if text:
        contents = contents.filter(Q(name__icontains=text) | Q(source_name__icontains=text))
    page = keyset_page(contents, ("name", "id"), **cursors(request))
    for package in page.rows:
        package.brought_by = _layer_words(context, package.layer_position)  # type: ignore[attr-defined]  # for the template alone
    return {"page": page, "q": text}


def _findings_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the findings, filtered by `?severity=` and `?fix=`, each with its origin, and the counts of all."""
    image: Image = context["image"]
    rows = findings_of(image)
    severity = request.GET.get("severity", "")
    if severity in COUNTED:
        wanted = ["unknown", "none"] if severity == "unknown" else [severity]
        rows = rows.filter(severity__in=wanted)
    if request.GET.get("fix") == "yes":
        rows = rows.exclude(fixed_version="")
    page = keyset_page(rows, ("-rank", "id"), **cursors(request))
    for match in page.rows:
        match.brought_by = _layer_words(context, match.layer_position)  # type: ignore[attr-defined]  # for the template alone
    counts = [(name, getattr(image, f"{name}_count")) for name in COUNTED]
    return {
        "page": page,
        "severity": severity,
        "has_fix": request.GET.get("fix") == "yes",
        "counts": counts,
        "unknown": unknown_findings_of(image),
    }


def _promotions_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the environments that the image can be promoted to; none in the repository of an environment."""
    repository: Repository = context["repository"]
    targets = targets_for(reader(request), repository, context["top"]) if repository.source_id is None else []
    return {"places": targets}


def _history_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the image's tag events, its SBOMs, and its audit events if the reader can read them."""
    events = (
        AuditEvent.objects.filter(digest=context["top"].digest, team=context["repository"].team)
        .select_related("actor")
        .order_by("-id")[:50]
    )
    may_read = may(reader(request), Verb.AUDIT_READ, repository=context["repository"])
    return {
        "events": page_queries.image_history(context["repository"], context["top"])[:50],
        "audit_events": events if may_read else None,
        "sboms": Sbom.objects.filter(image=context["image"]).defer("document").order_by("-id"),
    }


def _layer_words(context: dict[str, Any], position: int | None) -> dict[str, str]:
    """Return the origin of a layer and its position, in words. The origin decides who can fix its findings."""
    if position is None:
        return {"who": "unknown", "which": "layer not in SBOM"}
    layers: list[Layer] = context["layers"]
    bases: list[BaseLine] = context["bases"]
    which = f"layer {position + 1} of {len(layers)}" if layers else f"layer {position + 1}"
    for base in reversed(bases):  # the layer comes from the base with the fewest layers that includes it
        if position < base.layer_count:
            return {"who": base.place.label if base.place else "a base image", "which": which}
    return {"who": f"{context['repository'].name}, own layer", "which": which}


# Returns the context of each tab of the image page. The argument is the context that all tabs share.
_IMAGE_TABS: Final[dict[str, Callable[[HttpRequest, dict[str, Any]], dict[str, Any]]]] = {
    "overview": _overview_tab,
    "lineage": _lineage_tab,
    "packages": _packages_tab,
    "findings": _findings_tab,
    "promotions": _promotions_tab,
    "history": _history_tab,
}
