"""Rebuild pages: all rebuild waves, the plan form, one wave with its logs, watches, and the recipe form."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.verbs import Verb
from lifecycle.authority.access import repository_for
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.authority.rights import may
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.jobs.queries import log_tail
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.jobs.raw_log import raw_log_answer
from lifecycle.pages.rebuild import page_queries
from lifecycle.pages.rebuild.forms import PlanForm, RecipeForm
from lifecycle.pages.requests import chosen, cursors, reader, sort_of
from lifecycle.rebuild import contexts, planning, services
from lifecycle.rebuild.access import job_for, wave_for
from lifecycle.rebuild.models import RebuildWave, Recipe, UpstreamWatch
from lifecycle.rebuild.queries import current_recipe, log_of, waves_visible_to
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Repository


@require_safe
def waves(request: HttpRequest) -> HttpResponse:
    """List the rebuild waves that the reader can see, newest first."""
    user = reader(request)
    rows, state = waves_visible_to(user), chosen(request, "state", RebuildWave.State.values)
    if state:
        rows = rows.filter(state=state)
    rows = rows.defer("old_base__manifest", "old_base__config", "new_base__manifest", "new_base__config")
    sort, order = sort_of(request, {"age": ("-id",)})
    page = keyset_page(rows, order, **cursors(request))
    counts = page_queries.counts_of([wave.pk for wave in page.rows], repositories_visible_to(user))
    context = {
        "page": page,
        "sort": sort,
        "entries": [(wave, counts.get(wave.pk, page_queries.Counts())) for wave in page.rows],
        "state": state,
        "states": RebuildWave.State.values,
    }
    return render(request, "lifecycle/rebuild/waves.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def plan(request: HttpRequest) -> HttpResponse:
    """Show and handle the form that plans a wave for a new base. A plan changes nothing until it is confirmed."""
    user = reader(request)
    bases = page_queries.bases_visible_to(user)
    if request.method == "POST":
        # Any visible repository: a recipe can refer to a base before any image is built on it.
        form = PlanForm(repositories_visible_to(user).filter(source=None), request.POST)
        if form.is_valid():
            with errors_shown_on(form):
                planned = planning.plan_wave(form.reference_text, actor=user)
                return redirect("lifecycle:wave", planned.pk)
    else:
        form = PlanForm(bases, initial=_initial_plan(request, bases))
    field = cast(Any, form.fields["base"])
    choices = list(bases[: page_queries.BASES_MAX + 1])
    field.choices = [(base.pk, base.name) for base in choices[: page_queries.BASES_MAX]]
    context = {
        "form": form,
        "has_bases": bool(choices),
        "is_cut": len(choices) > page_queries.BASES_MAX,
        "may_rebuild": repositories_visible_to(user, Verb.IMAGE_REBUILD).exists(),
    }
    return render(request, "lifecycle/rebuild/plan.html", context, status=422 if form.errors else 200)


def _initial_plan(request: HttpRequest, bases: Any) -> dict[str, Any]:
    """Return the initial values of the plan form.

    They are the base and reference in the address, else the first base, and the base's latest tag.
    """
    key = request.GET.get("repository", "") or request.GET.get("base", "")
    chosen: Repository | None = bases.first()
    if key.isascii() and key.isdigit() and len(key) < 18:
        chosen = bases.filter(pk=int(key)).first() or chosen
    tag = page_queries.tag_to_plan(chosen) if chosen is not None else None
    reference = request.GET.get("reference", "")[:200] or (tag.name if tag is not None else "")
    return {"base": chosen.pk if chosen is not None else None, "reference": reference}


def _unchanged(request: HttpRequest, etag: str) -> HttpResponse | None:
    """Return 304 for a poll whose content has not changed, else None. A full page load always gets None."""
    return get_conditional_response(request, etag=f'"{etag}"') if getattr(request, "htmx", False) else None


@require_safe
def wave(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one wave: its plan until it is confirmed, then the progress of each image. A poll gets the fragment."""
    user = reader(request)
    shown = wave_for(user, pk)
    etag = page_queries.fingerprint(user, shown)
    if (answer := _unchanged(request, etag)) is not None:
        return answer
    template = "lifecycle/rebuild/_wave.html" if getattr(request, "htmx", False) else "lifecycle/rebuild/wave.html"
    level_text = request.GET.get("level", "")
    level = int(level_text) if level_text.isascii() and level_text.isdigit() and len(level_text) < 5 else 0
    context = {
        "detail": page_queries.wave_detail(user, shown, whole_level=level),
        "wave": shown,
        "etag": etag,
        "level": level,
        "ids_max": f":{page_queries.IDS_MAX}",
        "ids_limit": page_queries.IDS_MAX,
    }
    response = render(request, template, context)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def confirm(request: HttpRequest, pk: int) -> HttpResponse:
    """Start a planned wave."""
    confirmed = services.confirm_wave(pk, actor=reader(request))
    messages.success(request, f"{confirmed} has started.")
    return redirect("lifecycle:wave", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Cancel a wave; a GET shows a confirmation page for browsers without JavaScript."""
    user = reader(request)
    if request.method == "POST":
        cancelled = services.cancel_wave(pk, actor=user)
        messages.success(request, f"{cancelled} is cancelled. Finished images are kept.")
        return redirect("lifecycle:wave", pk)
    shown = wave_for(user, pk)
    context = {"detail": page_queries.wave_detail(user, shown), "wave": shown}
    return render(request, "lifecycle/rebuild/cancel.html", context)


@require_POST
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Retry the failed and blocked images of a wave."""
    retried = services.retry_wave(pk, actor=reader(request))
    messages.success(request, f"{retried} continues. Failed and blocked images are retried.")
    return redirect("lifecycle:wave", pk)


@require_safe
def log(request: HttpRequest, pk: int, job: int) -> HttpResponse:
    """Show the result and log of one image of a wave. The page polls while the image is being built."""
    user = reader(request)
    rebuild = job_for(user, pk, job)
    lines, is_cut = log_tail(log_of(rebuild), limit=page_queries.LOG_LINES)
    etag = f"{rebuild.pk}-{rebuild.state}-{rebuild.attempts}-{lines[-1].pk if lines else 0}"
    if (answer := _unchanged(request, etag)) is not None:
        return answer
    is_fragment = getattr(request, "htmx", False)
    context = {
        "wave": rebuild.wave,
        "job": rebuild,
        "row": page_queries.row_of(rebuild),
        "lines": lines,
        "is_cut": is_cut,
        "is_open": rebuild.state in services.OPEN_STATES and rebuild.wave.state == RebuildWave.State.RUNNING,
        "etag": etag,
    }
    response = render(request, f"lifecycle/rebuild/{'_log' if is_fragment else 'log'}.html", context)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


@require_safe
def raw_log(request: HttpRequest, pk: int, job: int) -> StreamingHttpResponse:
    """Stream the complete log of one image of a wave."""
    return raw_log_answer(log_of(job_for(reader(request), pk, job)), filename=f"rebuild-{pk}-{job}.log")


@require_POST
def watch(request: HttpRequest, repository: int) -> HttpResponse:
    """Watch a tag of a base. Each move of the tag plans a wave, but does not start it."""
    user = reader(request)
    base = repository_for(user, repository)
    try:
        created = services.watch_base(base.pk, actor=user, tag=request.POST.get("tag", "")[:200])
    except Malformed as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"Watching {created}. A rebuild is planned when the tag moves.")
    return redirect(f"{_address(base)}?tab=rebuilds")


@require_POST
def unwatch(request: HttpRequest, repository: int, watch: int) -> HttpResponse:
    """Stop watching a tag of a base."""
    base = repository_for(reader(request), repository)
    watched = UpstreamWatch.objects.filter(repository=base, pk=watch).first()  # before the service deletes it
    services.unwatch(base.pk, watch, actor=reader(request))
    messages.success(request, f"Stopped watching {watched}.")
    return redirect(f"{_address(base)}?tab=rebuilds")


@require_POST
def repository_builder(request: HttpRequest, repository: int) -> HttpResponse:
    """Turn the embedded builder on or off for one repository (admins only)."""
    user = reader(request)
    target = repository_for(user, repository)
    if request.POST.get("turn") == "on":
        services.turn_builder_on(actor=user, repository_id=target.pk)
        messages.success(request, f"The embedded builder is on for {target.name}.")
    else:
        services.turn_builder_off(actor=user, repository_id=target.pk)
        messages.success(request, f"The embedded builder is off for {target.name}.")
    return redirect(f"{_address(target)}?tab=recipe")


@require_POST
def team_builder(request: HttpRequest, slug: str) -> HttpResponse:
    """Turn the embedded builder on or off for all repositories of a team (admins only)."""
    user = reader(request)
    if request.POST.get("turn") == "on":
        services.turn_builder_on(actor=user, team=slug)
        messages.success(request, f"The embedded builder is on for team {slug}.")
    else:
        services.turn_builder_off(actor=user, team=slug)
        messages.success(request, f"The embedded builder is off for team {slug}.")
    return redirect(f"{reverse('lifecycle:team', args=[slug])}?tab=builder")


@require_http_methods(["GET", "HEAD", "POST"])
def recipe(request: HttpRequest, repository: int) -> HttpResponse:
    """Show and handle the form that stores a new recipe revision. An invalid form keeps its text."""
    user = reader(request)
    target = repository_for(user, repository)
    if target.source_id is not None:
        raise NotFound("Promoted images are not built here. The source repository has the recipe.")
    current = current_recipe(target)
    allowed = may(user, Verb.RECIPE_MANAGE, repository=target)
    if request.method == "POST":
        repository_for(user, repository, Verb.RECIPE_MANAGE)
        form = RecipeForm(request.POST, request.FILES)
        if form.is_valid():
            given = form.cleaned_data
            kept = _kept_files(target, current) if given["keep_context"] and current is not None else {}
            with errors_shown_on(form):
                created = services.put_recipe(
                    target.pk,
                    actor=user,
                    containerfile=given["containerfile"],
                    context=kept | given["context"],
                    build_args=given["build_args"],
                    tag=given["tag"],
                )
                messages.success(request, f"Revision {created.revision} is now the current recipe.")
                return redirect(f"{_address(target)}?tab=recipe")
    else:
        form = RecipeForm(initial=_initial_recipe(current))
    context = {"form": form, "repository": target, "recipe": current, "allowed": allowed}
    return render(request, "lifecycle/rebuild/recipe.html", context, status=422 if form.errors else 200)


def _address(repository: Repository) -> str:
    return reverse("lifecycle:repository", args=[repository.team.slug, repository.name])


def _initial_recipe(current: Recipe | None) -> dict[str, Any]:
    if current is None:
        return {}
    lines = "\n".join(f"{name}={value}" for name, value in current.build_args.items())
    return {"containerfile": current.containerfile, "tag": current.tag, "build_args": lines}


def _kept_files(repository: Repository, current: Recipe) -> dict[str, bytes]:
    """Return the files of the current recipe, from the registry; {} when it has no context."""
    if not current.context_digest:
        return {}
    with tempfile.TemporaryDirectory(prefix="gd-context-") as scratch:
        folder = Path(scratch)
        contexts.unpack(client_for(repository.registry), repository.name, current.context_digest, folder)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
