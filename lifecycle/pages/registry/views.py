"""The repository and image pages. They only read; changes have their own pages elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.db.models import Max, Q
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRefresh

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.access import image_in, repository_of
from lifecycle.authority.queries import images_visible_to, repositories_visible_to, teams_visible_to
from lifecycle.authority.rights import may, require
from lifecycle.authority.services.teams import is_above_grants
from lifecycle.core.errors import NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.core.severities import COUNTED
from lifecycle.environments.models import Slot
from lifecycle.evidence import exporting
from lifecycle.ingest import managing, metadata
from lifecycle.ingest.protection import protect_tags
from lifecycle.lineage.models import Derivation
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.lineage.page_queries import EVIDENCE_WORDS, levels_below
from lifecycle.pages.promotion.page_queries import targets_for, why_not_promotable
from lifecycle.pages.rebuild.page_queries import Counts, counts_of, plan_offer, rebuilt_as, tags_to_choose, waves_about
from lifecycle.pages.registry import page_queries
from lifecycle.pages.registry.configuration import configuration_of
from lifecycle.pages.registry.findings import LayerShare, findings_by_layer, findings_of, unknown_findings_of
from lifecycle.pages.registry.forms import DescriptionForm, MetadataForm, ProtectionForm
from lifecycle.pages.registry.packages import add_reasons, packages_of, unjudged
from lifecycle.pages.requests import chosen, cursors, reader, sort_of
from lifecycle.promotion.models import PromotionRequest
from lifecycle.rebuild.models import Recipe
from lifecycle.rebuild.queries import builder_permit_of, current_recipe, watches_of
from lifecycle.rebuild.refusals import why_not_build
from lifecycle.registry.models import Image, Layer, Repository
from lifecycle.registry.queries import Location, given_by_people, locations_of, metadata_of
from lifecycle.sbom import services
from lifecycle.sbom.models import Sbom
from lifecycle.sbom.services import why_not_rescan

_REPOSITORY_TABS: Final = ("tags", "untagged", "recipe", "rebuilds", "history", "settings")
_WATCHABLE_MAX: Final = 100  # number of tags to choose from, last moved first
_HIDDEN_BASE: Final = "a base you cannot see"
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
    user = reader(request)
    visible = repositories_visible_to(user)
    teams = Team.objects.filter(Q(pk__in=visible.values("team")) | Q(pk__in=teams_visible_to(user).values("pk")))
    slugs = list(teams.order_by("slug").values_list("slug", flat=True))
    text, team = request.GET.get("q", "").strip()[:_SEARCH_MAX], chosen(request, "team", slugs)
    rows = page_queries.repositories_with_latest(visible)
    if text:
        rows = rows.filter(Q(name__icontains=text) | Q(description__icontains=text))
    if team:
        rows = rows.filter(team__slug=team)
    sort, order = sort_of(request, {"updated": ("-updated_at", "-id"), "name": ("name", "id")})
    page = keyset_page(rows, order, **cursors(request))
    if getattr(request, "htmx", False):
        return _first_push(has_come=bool(page))
    page_queries.add_latest_tags(page.rows)
    context = {
        "page": page,
        "sort": sort,
        "teams": slugs,
        "push_team": team or next(iter(slugs), ""),  # in the commands of an empty list
        "q": text,
        "team": team,
    }
    return render(request, "lifecycle/registry/images.html", context)


def _first_push(*, has_come: bool) -> HttpResponse:
    """Answer the poll of an empty page: reload it when the first push has come, else change nothing."""
    return HttpResponseClientRefresh() if has_come else HttpResponse(status=204)


@require_safe
def repository(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Show one repository: its tags with pull commands, its recipe, its rebuilds, and the history of its tags."""
    user = reader(request)
    row = repository_of(repositories_visible_to(user), team, name)
    tab = request.GET.get("tab", "tags")
    tab = tab if tab in _REPOSITORY_TABS else "tags"
    if getattr(request, "htmx", False):
        return _first_push(has_come=page_queries.tags_of(row).exists())
    return repository_page(request, row, tab)


def repository_page(
    request: HttpRequest, row: Repository, tab: str, *, status: int = 200, **forms: Form
) -> HttpResponse:
    """Return the page of a repository at one tab. `forms` replace the empty forms, to show their errors."""
    user = reader(request)
    context: dict[str, Any] = {
        "repository": row,
        "tab": tab,
        "recipe": current_recipe(row),
        "plan": plan_offer(user, row),
        "is_empty": not page_queries.tags_of(row).exists(),
        "may_delete": row.environment_id is None and bool(may(user, Verb.IMAGE_DELETE, repository=row)),
        "may_push": may(user, Verb.IMAGE_CREATE, repository=row) if row.environment_id is None else None,
    }
    if tab == "tags":
        context["why_not_promotable"] = why_not_promotable(user, row)
        tags, shows_own = page_queries.tags_of(row), request.GET.get("own") == "yes"
        people = given_by_people(tags)
        context["own_tags"] = tags.count() - people.count()
        context["shows_own"] = shows_own
        context["sort"], order = sort_of(request, {"updated": ("-updated_at", "-id"), "name": ("name", "id")})
        context["page"] = keyset_page(tags if shows_own else people, order, **cursors(request))
    elif tab == "history":
        context["page"] = keyset_page(page_queries.tag_history(row), ("-id",), **cursors(request))
    elif tab == "untagged":
        context["page"] = keyset_page(page_queries.untagged_in(row), ("-id",), **cursors(request))
    elif tab == "settings":
        context |= {
            "may_amend": may(user, Verb.IMAGE_AMEND, repository=row, environment=row.environment),
            "description_form": DescriptionForm(initial={"description": row.description}),
            "metadata": metadata_of(row),
            "metadata_form": MetadataForm(),
            "protection_form": ProtectionForm(initial={"patterns": "\n".join(row.protected_tags)}),
        }
    elif tab == "recipe":
        context |= _recipe_tab(request, row, context["recipe"])
    elif tab == "rebuilds":
        context |= _rebuilds_tab(request, row)
    return render(request, "lifecycle/registry/repository.html", context | forms, status=status)


def _managed(request: HttpRequest, team: str, name: str) -> Repository:
    """Return the repository, if the reader can change its settings; raises NotFound, NotPermitted."""
    user = reader(request)
    row = repository_of(repositories_visible_to(user), team, name)
    require(user, Verb.IMAGE_AMEND, repository=row, environment=row.environment)
    return row


def _settings_url(row: Repository) -> str:
    return f"{reverse('lifecycle:repository', args=[row.team.slug, row.name])}?tab=settings"


@require_POST
def describe(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Change the description of a repository."""
    row, form = _managed(request, team, name), DescriptionForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "description"):
            managing.describe_repository(row.pk, form.cleaned_data["description"], actor=reader(request))
            messages.success(request, "Description saved.")
            return redirect(_settings_url(row))
    return repository_page(request, row, "settings", status=422, description_form=form)


@require_POST
def protect(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Replace the patterns of protected tags."""
    row, form = _managed(request, team, name), ProtectionForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "patterns"):
            protect_tags(row.pk, form.cleaned_data["patterns"].split(), actor=reader(request))
            messages.success(request, "Protected tags saved.")
            return redirect(_settings_url(row))
    return repository_page(request, row, "settings", status=422, protection_form=form)


@require_http_methods(["GET", "HEAD", "POST"])
def delete_tag(request: HttpRequest, team: str, name: str, tag: str) -> HttpResponse:
    """Ask for confirmation, then delete a tag in the registry. Its image stays, without this tag."""
    user = reader(request)
    row = repository_of(repositories_visible_to(user), team, name)
    shown = page_queries.tags_of(row).filter(name=tag).first()
    if shown is None or shown.image is None:
        raise NotFound("Tag not found, or you don't have access.")
    if request.method == "POST":
        job = managing.delete_tag(row.pk, tag, actor=user)
        messages.success(request, f"Deleting {row}:{tag}.")
        return redirect("lifecycle:job", job.pk)
    require(user, Verb.IMAGE_DELETE, repository=row, environment=row.environment)
    shown.repository = row
    context = {
        "repository": row,
        "tag": shown,
        "image": shown.image,
        "why_not": managing.why_not_delete_tag(user, shown),
    }
    return render(request, "lifecycle/registry/delete.html", context | page_queries.standing_on(row, shown.image, user))


@require_http_methods(["GET", "HEAD", "POST"])
def delete_image(request: HttpRequest, team: str, name: str, digest: str) -> HttpResponse:
    """Ask for confirmation, with what stands on the image, then delete it and its tags in the registry."""
    user = reader(request)
    row = repository_of(repositories_visible_to(user), team, name)
    image = image_in(row, digest).image
    if request.method == "POST":
        job = managing.delete_image(row.pk, digest, actor=user)
        messages.success(request, f"Deleting {row}@{image.short_digest}.")
        return redirect("lifecycle:job", job.pk)
    require(user, Verb.IMAGE_DELETE, repository=row, environment=row.environment)
    context = {"repository": row, "image": image, "why_not": managing.why_not_delete(user, row, image)}
    return render(request, "lifecycle/registry/delete.html", context | page_queries.standing_on(row, image, user))


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
    return _image_page(request, team, name, digest, request.GET.get("tab", "overview"))


def _image_page(
    request: HttpRequest, team: str, name: str, digest: str, tab: str, *, status: int = 200, **forms: Form
) -> HttpResponse:
    """Return the page of an image at one tab. `forms` replace the empty forms, to show their errors."""
    user = reader(request)
    visible = repositories_visible_to(user)
    row = repository_of(visible, team, name)
    member = image_in(row, digest)
    entries = page_queries.entries_of(member.image)
    wanted = chosen(request, "platform", [entry.child.digest for entry in entries])
    platform = next((entry.child for entry in entries if entry.child.digest == wanted), None)
    shown = platform or (entries[0].child if entries else member.image)
    tab = tab if tab in _IMAGE_TABS else "overview"
    layers = page_queries.layers_of(shown)
    bases = _bases(shown, visible, user)
    hidden_depth = _hidden_depth(shown, user)
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
        "hidden_depth": hidden_depth,
        "slots": Slot.objects.filter(image__in={member.image.pk, shown.pk}, repository__in=visible).select_related(
            "environment", "repository"
        ),
        "promotions": PromotionRequest.objects.filter(image=member.image, repository__in=visible)
        .select_related("environment", "source_environment", "requested_by", "repository")
        .order_by("-id")[:50],
        "who_can_fix": _who_can_fix(shares, bases, row.name, hidden_depth),
        "why_not_promotable": why_not_promotable(user, row),
        "plan": plan_offer(user, row, member.image),
        "rebuilt": rebuilt_as(row, member.image, user),
        "why_not_rescan": why_not_rescan(user, row, member.image),
        "may_scan": bool(may(user, Verb.IMAGE_SCAN, repository=row, environment=row.environment)),
        "may_delete": bool(may(user, Verb.IMAGE_DELETE, repository=row, environment=row.environment)),
        "other_tags": page_queries.other_tags(row, member.image),
    }
    context |= _IMAGE_TABS[tab](request, context)
    return render(request, "lifecycle/registry/image.html", context | forms, status=status)


@require_POST
def set_metadata(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Set one key of the metadata of a repository, or with `digest` of an image in it."""
    row, form, digest = _managed(request, team, name), MetadataForm(request.POST), request.POST.get("digest", "")
    if form.is_valid():
        with errors_shown_on(form, "value"):
            metadata.set_metadata(row.pk, actor=reader(request), digest=digest, **form.cleaned_data)
            messages.success(request, f"{form.cleaned_data['key']} saved.")
            return redirect(_metadata_url(row, digest))
    if digest:
        return _image_page(request, team, name, digest, "configuration", status=422, metadata_form=form)
    return repository_page(request, row, "settings", status=422, metadata_form=form)


@require_POST
def remove_metadata(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Remove one key of the metadata of a repository, or with `digest` of an image in it."""
    row, digest = _managed(request, team, name), request.POST.get("digest", "")
    metadata.remove_metadata(row.pk, request.POST.get("key", ""), actor=reader(request), digest=digest)
    messages.success(request, "Removed.")
    return redirect(_metadata_url(row, digest))


def _metadata_url(row: Repository, digest: str) -> str:
    if not digest:
        return _settings_url(row)
    return f"{reverse('lifecycle:image', args=[row.team.slug, row.name, digest])}?tab=configuration"


@require_POST
def rescan(request: HttpRequest, team: str, name: str, digest: str) -> HttpResponse:
    """Scan the image again."""
    user = reader(request)
    row = repository_of(repositories_visible_to(user), team, name)
    jobs = services.rescan(row.pk, digest, actor=user)
    messages.success(request, "Scan requested. The present findings stay until it has finished.")
    if len(jobs) == 1:
        return redirect("lifecycle:job", jobs[0].pk)
    return redirect("lifecycle:image", team, name, digest)


@require_safe
def export(request: HttpRequest, team: str, name: str, digest: str, kind: str) -> HttpResponseBase:
    """Send the packages or findings of the image as a file."""
    row = repository_of(repositories_visible_to(reader(request)), team, name)
    image = image_in(row, digest).image
    media_type, parts = exporting.export(image, kind, metadata=metadata.as_record(row, image))
    response = StreamingHttpResponse(parts, content_type=media_type)
    file_name = f"{row.name.replace('/', '-')}-{image.digest.partition(':')[2][:12]}.{kind}"
    response["Content-Disposition"] = f'attachment; filename="{file_name}"'
    response["Cache-Control"] = "no-store"
    return response


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


def _hidden_depth(image: Image, user: User) -> int | None:
    """Return how many of the first layers come from a base that the reader cannot see; None without such a base.

    The reader learns only that there is a base, and which findings come from it: else the page would blame the image
    itself. No name, digest, list or total shows it.
    """
    edges = Derivation.objects.filter(derived=image).exclude(base__in=images_visible_to(user))
    depths = [
        layer_count if Derivation.Evidence.LAYERS in evidence else 0
        for layer_count, evidence in edges.values_list("base__layer_count", "evidence")
    ]
    return max(depths, default=None)


def _base_layer_count(bases: list[BaseLine]) -> int:
    return max((base.layer_count for base in bases), default=0)


def _who_can_fix(shares: list[LayerShare], bases: list[BaseLine], own: str, hidden_depth: int | None) -> dict[str, Any]:
    """Return the parts of the who-can-fix bar: findings from the base, from the image itself, and of unknown origin."""
    depth = _base_layer_count(bases)
    name = next((base.place.repository.name for base in bases if base.place and base.layer_count), "the base image")
    inherited = sum(
        share.count for share in shares if share.layer_position is not None and share.layer_position < depth
    )
    unplaced = sum(share.count for share in shares if share.layer_position is None)
    hidden = sum(
        share.count
        for share in shares
        if share.layer_position is not None and depth <= share.layer_position < (hidden_depth or 0)
    )
    mine = sum(share.count for share in shares) - inherited - hidden - unplaced
    parts = [("base", f"{inherited} {name}", inherited), ("base2", f"{hidden} {_HIDDEN_BASE}", hidden)]
    parts.append(("own", f"{mine} {own}", mine))
    parts.append(("unknown", f"{unplaced} layer unknown", unplaced))
    return {
        "total": inherited + hidden + mine + unplaced,
        "parts": [part for part in parts if part[2]],
        "inherited": inherited,
        "hidden": hidden,
        "mine": mine,
        "unplaced": unplaced,
        "base": name,
    }


def _overview_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the creation time of the image's latest SBOM."""
    return {"newest_sbom_at": Sbom.objects.filter(image=context["image"]).aggregate(at=Max("created_at"))["at"]}


def _configuration_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the platform that is shown."""
    repository: Repository = context["repository"]
    return {
        "configuration": configuration_of(context["image"]),
        "metadata": metadata_of(repository, context["top"]),
        "metadata_form": MetadataForm(),
        "metadata_digest": context["top"].digest,
        "may_amend": may(reader(request), Verb.IMAGE_AMEND, repository=repository, environment=repository.environment),
    }


def _lineage_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of images that are built on the image, level by level."""
    return {"levels": levels_below(context["image"], repositories_visible_to(reader(request)))}


def _packages_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the packages, each with its origin, filtered by name with `?q=`, or those not judged with `?unjudged=`."""
    contents = packages_of(context["image"])
    text = request.GET.get("q", "").strip()[:_SEARCH_MAX]
    if text:
        contents = contents.filter(Q(name__icontains=text) | Q(source_name__icontains=text))
    shows_unjudged = request.GET.get("unjudged") == "yes"
    if shows_unjudged:
        contents = unjudged(contents)
    page = keyset_page(contents, ("name", "id"), **cursors(request))
    add_reasons(page.rows)
    for package in page.rows:
        package.brought_by = _layer_words(context, package.layer_position)  # type: ignore[attr-defined]  # for the template alone
    return {"page": page, "q": text, "unjudged": shows_unjudged}


def _findings_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the findings, filtered by `?severity=` and `?fix=`, each with its origin, and the counts of all."""
    image: Image = context["image"]
    rows = findings_of(image)
    severity, fix = chosen(request, "severity", COUNTED), chosen(request, "fix", ("yes",))
    if severity:
        wanted = ["unknown", "none"] if severity == "unknown" else [severity]
        rows = rows.filter(severity__in=wanted)
    text = request.GET.get("q", "").strip()[:_SEARCH_MAX]
    if text:
        rows = rows.filter(Q(package__name__icontains=text) | Q(package__source_name__icontains=text))
    if fix:
        rows = rows.exclude(fixed_version="")
    sort, order = sort_of(request, {"severity": ("-rank", "id"), "package": ("package__name", "id")})
    page = keyset_page(rows, order, **cursors(request))
    for match in page.rows:
        match.brought_by = _layer_words(context, match.layer_position)  # type: ignore[attr-defined]  # for the template alone
    counts = [(name, getattr(image, f"{name}_count")) for name in COUNTED]
    return {
        "page": page,
        "severity": severity,
        "has_fix": bool(fix),
        "sort": sort,
        "q": text,
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
    if position < (context["hidden_depth"] or 0):
        return {"who": _HIDDEN_BASE, "which": which}
    return {"who": f"{context['repository'].name}, own layer", "which": which}


# Returns the context of each tab of the image page. The argument is the context that all tabs share.
_IMAGE_TABS: Final[dict[str, Callable[[HttpRequest, dict[str, Any]], dict[str, Any]]]] = {
    "overview": _overview_tab,
    "configuration": _configuration_tab,
    "lineage": _lineage_tab,
    "packages": _packages_tab,
    "findings": _findings_tab,
    "promotions": _promotions_tab,
    "history": _history_tab,
}
