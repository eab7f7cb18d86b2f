"""The pages of repositories and images. Everything is read: what changes something has its own page elsewhere."""

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
from lifecycle.core.paging import keyset_page
from lifecycle.core.severities import COUNTED
from lifecycle.environments.models import Slot
from lifecycle.lineage.models import Derivation
from lifecycle.pages.lineage.page_queries import EVIDENCE_WORDS, levels_below
from lifecycle.pages.promotion.page_queries import targets_for, why_not_promotable
from lifecycle.pages.rebuild.page_queries import Counts, counts_of, plan_offer, rebuilt_as, tags_to_choose, waves_about
from lifecycle.pages.registry import page_queries
from lifecycle.pages.registry.findings import LayerShare, findings_by_layer, findings_of
from lifecycle.pages.registry.packages import packages_of
from lifecycle.pages.requests import cursors, reader
from lifecycle.promotion.models import PromotionRequest
from lifecycle.rebuild.models import Recipe
from lifecycle.rebuild.queries import current_recipe, watches_of
from lifecycle.registry.models import Image, Layer, Repository
from lifecycle.registry.queries import Location, given_by_people, locations_of
from lifecycle.sbom.models import Sbom

_REPOSITORY_TABS: Final = ("tags", "recipe", "rebuilds", "history")
_WATCHABLE_MAX: Final = 100  # tags to choose from, those that moved last
_SEARCH_MAX: Final = 200  # characters; a repository's name is shorter than 255


@dataclass(frozen=True, slots=True)
class BaseLine:
    """A base of the image, how it is known, and how far it is behind."""

    derivation: Derivation
    place: Location | None
    lag: page_queries.Lag | None
    evidence: str
    layer_count: int  # the image's first layers that are the base's


@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """Lead to what waits for the reader."""
    return HttpResponseRedirect(reverse("lifecycle:inbox"))


@require_safe
def images(request: HttpRequest) -> HttpResponse:
    """List the repositories that the reader may see, newest change first, with the newest tag of each."""
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
    """Show one repository: its tags with how to pull them, how it is built, how its tags moved."""
    user = reader(request)
    found = repository_of(repositories_visible_to(user), team, name)
    tab = request.GET.get("tab", "tags")
    tab = tab if tab in _REPOSITORY_TABS else "tags"
    context: dict[str, Any] = {
        "repository": found,
        "tab": tab,
        "recipe": current_recipe(found),
        "plan": plan_offer(user, found),
        "is_empty": not page_queries.tags_of(found).exists(),
        "may_push": may(user, Verb.IMAGE_CREATE, repository=found) if found.environment_id is None else None,
    }
    if tab == "tags":
        context["why_not_promotable"] = why_not_promotable(user, found)
        tags, shows_own = page_queries.tags_of(found), request.GET.get("own") == "yes"
        people = given_by_people(tags)
        context["own_tags"] = tags.count() - people.count()
        context["shows_own"] = shows_own
        context["page"] = keyset_page(tags if shows_own else people, ("-updated_at", "-id"), **cursors(request))
    elif tab == "history":
        context["page"] = keyset_page(page_queries.tag_history(found), ("-id",), **cursors(request))
    elif tab == "recipe":
        context |= _recipe_tab(request, found, context["recipe"])
    elif tab == "rebuilds":
        context |= _rebuilds_tab(request, found)
    return render(request, "lifecycle/registry/repository.html", context)


def _recipe_tab(request: HttpRequest, repository: Repository, in_force: Recipe | None) -> dict[str, Any]:
    """Return the revision that `?revision=` asks for (the one in force by itself), all of them, and who may add one."""
    rows = Recipe.objects.filter(repository=repository).select_related("author")
    asked = request.GET.get("revision", "")
    shown = (
        rows.filter(revision=int(asked)).first() if asked.isascii() and asked.isdigit() and len(asked) < 10 else None
    )
    verb = Verb.IMAGE_AMEND if in_force is not None else Verb.IMAGE_CREATE
    return {
        "shown": shown or in_force,
        "page": keyset_page(rows, ("-revision",), **cursors(request), size=20),
        "may_store": may(reader(request), verb, repository=repository),
    }


def _rebuilds_tab(request: HttpRequest, repository: Repository) -> dict[str, Any]:
    """Return the waves that renew this repository or stand on it, its watches, and who may add one."""
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
    """Show one image. An index shows one of its platforms; `?platform=` (a digest) chooses which."""
    user = reader(request)
    visible = repositories_visible_to(user)
    found = repository_of(visible, team, name)
    member = image_in(found, digest)
    entries = page_queries.entries_of(member.image)
    chosen = next((entry.child for entry in entries if entry.child.digest == request.GET.get("platform")), None)
    shown = chosen or (entries[0].child if entries else member.image)
    tab = request.GET.get("tab", "overview")
    tab = tab if tab in _IMAGE_TABS else "overview"
    layers = page_queries.layers_of(shown)
    bases = _bases(shown, visible, user)
    shares = findings_by_layer(shown) if shown.scanned_at else []
    context: dict[str, Any] = {
        "repository": found,
        "member": member,
        "top": member.image,  # what the address names: an index, or the platform itself
        "image": shown,
        "entries": entries,
        "tab": tab,
        "tags": given_by_people(page_queries.tags_of(found).filter(image=member.image)).order_by("-updated_at"),
        "layers": layers,
        "bases": bases,
        "slots": Slot.objects.filter(image__in={member.image.pk, shown.pk}, repository__in=visible).select_related(
            "environment", "repository"
        ),
        "promotions": PromotionRequest.objects.filter(image=member.image, repository__in=visible)
        .select_related("environment", "source_environment", "requested_by", "repository")
        .order_by("-id")[:50],
        "who_can_fix": _who_can_fix(shares, bases, found.name),
        "why_not_promotable": why_not_promotable(user, found),
        "plan": plan_offer(user, found, member.image),
        "rebuilt": rebuilt_as(found, member.image, user),
    }
    context |= _IMAGE_TABS[tab](request, context)
    return render(request, "lifecycle/registry/image.html", context)


def _bases(image: Image, visible: Any, user: User) -> list[BaseLine]:
    """Return the bases of `image` that the reader may see, the deepest first, with how far each is behind."""
    edges = list(
        Derivation.objects.filter(derived=image, base__in=images_visible_to(user))
        .select_related("base")
        .order_by("-base__layer_count", "id")[:5]
    )
    places = locations_of([edge.base_id for edge in edges], visible)
    return [
        BaseLine(
            edge,
            places.get(edge.base_id),
            page_queries.lag_of(edge.base, visible),
            ", ".join(EVIDENCE_WORDS.get(kind, kind) for kind in edge.evidence),
            edge.base.layer_count if Derivation.Evidence.LAYERS in edge.evidence else 0,
        )
        for edge in edges
    ]


def _base_layer_count(bases: list[BaseLine]) -> int:
    return max((base.layer_count for base in bases), default=0)


def _who_can_fix(shares: list[LayerShare], bases: list[BaseLine], own: str) -> dict[str, Any]:
    """Return the parts of the who-can-fix bar: what comes with the base, what is the image's own, what is not known."""
    depth = _base_layer_count(bases)
    name = next((base.place.repository.name for base in bases if base.place and base.layer_count), "the base image")
    inherited = sum(
        share.count for share in shares if share.layer_position is not None and share.layer_position < depth
    )
    unplaced = sum(share.count for share in shares if share.layer_position is None)
    mine = sum(share.count for share in shares) - inherited - unplaced
    parts = [("base", f"{inherited} {name}", inherited), ("own", f"{mine} {own}", mine)]
    parts.append(("unknown", f"{unplaced} layer not known", unplaced))
    return {
        "total": inherited + mine + unplaced,
        "parts": [part for part in parts if part[2]],
        "inherited": inherited,
        "mine": mine,
        "unplaced": unplaced,
        "base": name,
    }


def _overview_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return when the image's newest SBOM was made."""
    return {"newest_sbom_at": Sbom.objects.filter(image=context["image"]).aggregate(at=Max("created_at"))["at"]}


def _lineage_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return what stands on the image, level by level."""
    return {"levels": levels_below(context["image"], repositories_visible_to(reader(request)))}


def _packages_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the packages, or those whose name `?q=` is a part of, each with who brought it."""
    contents = packages_of(context["image"])
    text = request.GET.get("q", "").strip()[:_SEARCH_MAX]
    if text:
        contents = contents.filter(Q(name__icontains=text) | Q(source_name__icontains=text))
    page = keyset_page(contents, ("name", "id"), **cursors(request))
    for package in page.rows:
        package.brought_by = _layer_words(context, package.layer_position)  # type: ignore[attr-defined]  # for the template alone
    return {"page": page, "q": text}


def _findings_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the findings that `?severity=` and `?fix=` leave, each with who brought it, and the counts of all."""
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
    return {"page": page, "severity": severity, "has_fix": request.GET.get("fix") == "yes", "counts": counts}


def _promotions_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return where the image can be promoted to; nowhere from an environment's own repository."""
    found: Repository = context["repository"]
    return {"places": targets_for(reader(request), found, context["top"]) if found.source_id is None else []}


def _history_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return how tags came to the image, what was done with it (for who may read that), and its SBOMs."""
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
    """Return who brought a layer and which it is: that decides who can fix what is in it."""
    if position is None:
        return {"who": "not known", "which": "the SBOM names no layer"}
    layers: list[Layer] = context["layers"]
    bases: list[BaseLine] = context["bases"]
    which = f"layer {position + 1} of {len(layers)}" if layers else f"layer {position + 1}"
    for base in reversed(bases):  # the shallowest base that reaches up to this layer brought it
        if position < base.layer_count:
            return {"who": base.place.label if base.place else "a base image", "which": which}
    return {"who": f"{context['repository'].name}, own layer", "which": which}


# What each tab of an image shows beside the plate; each is given what the plate shows.
_IMAGE_TABS: Final[dict[str, Callable[[HttpRequest, dict[str, Any]], dict[str, Any]]]] = {
    "overview": _overview_tab,
    "lineage": _lineage_tab,
    "packages": _packages_tab,
    "findings": _findings_tab,
    "promotions": _promotions_tab,
    "history": _history_tab,
}
