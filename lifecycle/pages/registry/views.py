"""The repository and image pages. They only read; changes have their own pages elsewhere."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.db.models import Q
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRefresh

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.authority.access import image_for, image_in, repository_of
from lifecycle.authority.queries import (
    images_visible_to,
    repositories_open_to,
    repositories_visible_to,
    teams_visible_to,
)
from lifecycle.authority.rights import is_above_grants, may, require
from lifecycle.core.errors import NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.environments.models import Slot
from lifecycle.evidence import exporting, fleet
from lifecycle.evidence.judgement import add_platforms
from lifecycle.ingest import managing, metadata
from lifecycle.ingest.openness import why_not_archive
from lifecycle.ingest.protection import protect_tags
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.promotion.page_queries import why_not_promotable
from lifecycle.pages.rebuild.page_queries import Counts, counts_of, plan_offer, rebuilt_as, tags_to_choose, waves_about
from lifecycle.pages.registry import page_queries
from lifecycle.pages.registry.findings import findings_by_layer
from lifecycle.pages.registry.forms import DescriptionForm, MetadataForm, ProtectionForm, SbomForm, VisibilityForm
from lifecycle.pages.registry.image_tabs import IMAGE_TABS, bases_of, hidden_depth_of, who_can_fix
from lifecycle.pages.requests import chosen, cursors, reader, sort_of
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine.queries import add_covers, covers_shown, quarantines_visible_to
from lifecycle.rebuild.models import Recipe
from lifecycle.rebuild.queries import builder_permit_of, current_recipe, watches_of
from lifecycle.rebuild.refusals import why_not_build
from lifecycle.registry.models import Repository
from lifecycle.registry.queries import given_by_people, metadata_of
from lifecycle.sbom import brought, services
from lifecycle.sbom.services import why_not_rescan

_REPOSITORY_TABS: Final = ("tags", "untagged", "recipe", "rebuilds", "history", "settings")
_OF_THE_TEAM: Final = ("recipe", "rebuilds")  # not for those who see a repository only because it is open
_WATCHABLE_MAX: Final = 100  # number of tags to choose from, last moved first
_SEARCH_MAX: Final = 200  # characters; a repository's name is shorter than 255


@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """Redirect to the inbox."""
    return HttpResponseRedirect(reverse("lifecycle:inbox"))


@require_safe
def images(request: HttpRequest) -> HttpResponse:
    """List the repositories that the reader can see, last updated first, each with its latest tag."""
    user = reader(request)
    visible = repositories_open_to(user)
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
    page_queries.add_latest_tags(page.rows, user)
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
@login_not_required  # visitors see public repositories where ANONYMOUS_ACCESS is on; else they are sent to sign in
def repository(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Show one repository: its tags with pull commands, its recipe, its rebuilds, and the history of its tags."""
    if not request.user.is_authenticated:
        return _public_page(request, team, name)
    user = reader(request)
    row = repository_of(repositories_open_to(user), team, name)
    tab = request.GET.get("tab", "tags")
    tab = tab if tab in _REPOSITORY_TABS and (tab not in _OF_THE_TEAM or is_granted(user, row)) else "tags"
    if getattr(request, "htmx", False):
        return _first_push(has_come=page_queries.tags_of(row).exists())
    return repository_page(request, row, tab)


def _public_page(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Show a visitor without an account the tags of a public repository; any other address leads to the sign-in."""
    rows = Repository.objects.filter(visibility=Repository.Visibility.PUBLIC)
    if not settings.ANONYMOUS_ACCESS:
        rows = rows.none()
    row = rows.select_related("team", "registry").filter(team__slug=team, name=name).first()
    if row is None:
        return redirect_to_login(request.get_full_path())
    people = given_by_people(page_queries.tags_of(row))
    page = keyset_page(people, ("-updated_at", "-id"), **cursors(request))
    return render(request, "lifecycle/registry/public.html", {"repository": row, "page": page})


def is_granted(user: User, row: Repository) -> bool:
    """Return whether `user` sees a repository by a grant, not only because it is open."""
    return repositories_visible_to(user).filter(pk=row.pk).exists()


def repository_page(
    request: HttpRequest, row: Repository, tab: str, *, status: int = 200, **forms: Form
) -> HttpResponse:
    """Return the page of a repository at one tab. `forms` replace the empty forms, to show their errors."""
    user = reader(request)
    granted = is_granted(user, row)
    context: dict[str, Any] = {
        "repository": row,
        "tab": tab,
        "is_granted": granted,
        "recipe": current_recipe(row) if granted else None,
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
        add_platforms(tag.image for tag in context["page"].rows)
        add_covers((tag.image for tag in context["page"].rows), user)
    elif tab == "history":
        context["page"] = keyset_page(page_queries.tag_history(row), ("-id",), **cursors(request))
    elif tab == "untagged":
        context["sort"], order = sort_of(request, {"pushed": ("-id",)})
        context["page"] = keyset_page(page_queries.untagged_in(row), order, **cursors(request))
        add_platforms(member.image for member in context["page"].rows)
        add_covers((member.image for member in context["page"].rows), user)
    elif tab == "settings":
        context |= {
            "may_amend": may(user, Verb.IMAGE_AMEND, repository=row, environment=row.environment),
            "description_form": DescriptionForm(initial={"description": row.description}),
            "may_manage": may(user, Verb.TEAM_MANAGE, repository=row, environment=row.environment),
            "visibility_form": VisibilityForm(initial={"visibility": row.visibility}),
            "why_not_archive": why_not_archive(user, row),
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
    row = repository_of(repositories_open_to(user), team, name)
    require(user, Verb.IMAGE_AMEND, repository=row, environment=row.environment)
    return row


def settings_url(row: Repository) -> str:
    """Return the address of the settings of a repository."""
    return f"{reverse('lifecycle:repository', args=[row.team.slug, row.name])}?tab=settings"


@require_POST
def describe(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Change the description of a repository."""
    row, form = _managed(request, team, name), DescriptionForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "description"):
            managing.describe_repository(row.pk, form.cleaned_data["description"], actor=reader(request))
            messages.success(request, "Description saved.")
            return redirect(settings_url(row))
    return repository_page(request, row, "settings", status=422, description_form=form)


@require_POST
def protect(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Replace the patterns of protected tags."""
    row, form = _managed(request, team, name), ProtectionForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "patterns"):
            protect_tags(row.pk, form.cleaned_data["patterns"].split(), actor=reader(request))
            messages.success(request, "Protected tags saved.")
            return redirect(settings_url(row))
    return repository_page(request, row, "settings", status=422, protection_form=form)


@require_http_methods(["GET", "HEAD", "POST"])
def delete_tag(request: HttpRequest, team: str, name: str, tag: str) -> HttpResponse:
    """Ask for confirmation, then delete a tag in the registry. Its image stays, without this tag."""
    user = reader(request)
    row = repository_of(repositories_open_to(user), team, name)
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
    row = repository_of(repositories_open_to(user), team, name)
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
    visible, granted = repositories_open_to(user), repositories_visible_to(user)
    row = repository_of(visible, team, name)
    member = image_in(row, digest)
    entries = page_queries.entries_of(member.image)
    wanted = chosen(request, "platform", [entry.child.digest for entry in entries])
    platform = next((entry.child for entry in entries if entry.child.digest == wanted), None)
    shown = platform or (entries[0].child if entries else member.image)
    tab = tab if tab in IMAGE_TABS else "overview"
    layers = page_queries.layers_of(shown)
    bases = bases_of(shown, visible, user)
    hidden_depth = hidden_depth_of(shown, user)
    shares = findings_by_layer(shown) if shown.scanned_at else []
    covers = covers_shown([member.image.pk], user).get(member.image.pk, [])
    named = [item.quarantine_id for item in covers]
    context: dict[str, Any] = {
        "repository": row,
        "member": member,
        "top": member.image,  # the image in the URL: an index or a platform manifest
        "image": shown,
        "entries": entries,
        "tab": tab,
        "is_granted": granted.filter(pk=row.pk).exists(),
        "tags": given_by_people(page_queries.tags_of(row).filter(image=member.image)).order_by("-updated_at"),
        "layers": layers,
        "bases": bases,
        "hidden_depth": hidden_depth,
        "slots": Slot.objects.filter(image__in={member.image.pk, shown.pk}, repository__in=granted).select_related(
            "environment", "repository"
        ),
        "promotions": PromotionRequest.objects.filter(image=member.image, repository__in=granted)
        .select_related("environment", "source_environment", "requested_by", "repository")
        .order_by("-id")[:50],
        "who_can_fix": who_can_fix(shares, bases, row.name, hidden_depth),
        "why_not_promotable": why_not_promotable(user, row) or (covers[0].words if covers else None),
        "plan": plan_offer(user, row, member.image),
        "rebuilt": rebuilt_as(row, member.image, user),
        "why_not_rescan": why_not_rescan(user, row, member.image),
        "may_scan": bool(may(user, Verb.IMAGE_SCAN, repository=row, environment=row.environment)),
        "may_delete": bool(may(user, Verb.IMAGE_DELETE, repository=row, environment=row.environment)),
        "other_tags": page_queries.other_tags(row, member.image),
        "covers": covers,
        "seen_quarantines": set(quarantines_visible_to(user).filter(pk__in=named).values_list("pk", flat=True)),
        "may_quarantine": images_visible_to(user, Verb.IMAGE_QUARANTINE).filter(pk=member.image.pk).exists(),
    }
    context |= IMAGE_TABS[tab](request, context)
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
        return settings_url(row)
    return f"{reverse('lifecycle:image', args=[row.team.slug, row.name, digest])}?tab=configuration"


@require_POST
def rescan(request: HttpRequest, team: str, name: str, digest: str) -> HttpResponse:
    """Scan the image again."""
    user = reader(request)
    row = repository_of(repositories_open_to(user), team, name)
    jobs = services.rescan(row.pk, digest, actor=user)
    messages.success(request, "Scan requested. The present findings stay until it has finished.")
    if len(jobs) == 1:
        return redirect("lifecycle:job", jobs[0].pk)
    return redirect("lifecycle:image", team, name, digest)


@require_POST
def send_sbom(request: HttpRequest, team: str, name: str, digest: str) -> HttpResponse:
    """Send an SBOM of the platform that is shown."""
    row = repository_of(repositories_open_to(reader(request)), team, name)
    image_in(row, digest)
    platform = request.POST.get("platform", digest)
    refuse_if(brought.why_not_send(reader(request), image_for(reader(request), platform)))
    form = SbomForm(request.POST, request.FILES)
    if form.is_valid():
        with errors_shown_on(form, "file"):
            brought.send(platform, form.cleaned_data["file"].read(), actor=reader(request))
            messages.success(request, "SBOM stored.")
            return redirect(_sboms_url(row, digest, platform))
    return _image_page(request, team, name, digest, "sboms", status=422, sbom_form=form)


@require_POST
def withdraw_sbom(request: HttpRequest, team: str, name: str, digest: str, sbom_id: int) -> HttpResponse:
    """Withdraw an SBOM of the image: it decides nothing any more."""
    row = repository_of(repositories_open_to(reader(request)), team, name)
    image_in(row, digest)
    kept = brought.withdraw(digest, sbom_id, actor=reader(request), reason=request.POST.get("reason", "").strip()[:500])
    messages.success(request, "SBOM withdrawn.")
    return redirect(_sboms_url(row, digest, kept.image.digest))


def _sboms_url(row: Repository, digest: str, platform: str) -> str:
    address = reverse("lifecycle:image", args=[row.team.slug, row.name, digest])
    return f"{address}?{urlencode({'tab': 'sboms', 'platform': platform})}"


@require_safe
def export_fleet(request: HttpRequest, kind: str) -> HttpResponseBase:
    """Send the findings of all images in use of a team (`?team=`) or a repository (`?repository=`) as a file."""
    media_type, name_of_file, parts = fleet.export_fleet(
        reader(request), kind, team=request.GET.get("team", ""), repository=request.GET.get("repository", "")
    )
    response = StreamingHttpResponse(parts, content_type=media_type)
    response["Content-Disposition"] = f'attachment; filename="{name_of_file}"'
    response["Cache-Control"] = "no-store"
    return response


@require_safe
def export(request: HttpRequest, team: str, name: str, digest: str, kind: str) -> HttpResponseBase:
    """Send the packages or findings of the image as a file."""
    row = repository_of(repositories_open_to(reader(request)), team, name)
    image = image_in(row, digest).image
    media_type, parts = exporting.export(image, kind, metadata=metadata.as_record(row, image), reader=reader(request))
    response = StreamingHttpResponse(parts, content_type=media_type)
    name_of_file = exporting.file_name(row.name, image.digest, kind)
    response["Content-Disposition"] = f'attachment; filename="{name_of_file}"'
    response["Cache-Control"] = "no-store"
    return response
