"""The pages of rebuilds: all waves, the form that plans one, a wave with its logs, and the form of a recipe."""

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
from lifecycle.core.errors import NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.pages.jobs.raw_log import raw_log_answer
from lifecycle.pages.rebuild import page_queries
from lifecycle.pages.rebuild.forms import PlanForm, RecipeForm
from lifecycle.pages.requests import cursors, reader
from lifecycle.rebuild import contexts, planning, services
from lifecycle.rebuild.access import job_for, wave_for
from lifecycle.rebuild.models import RebuildWave, Recipe
from lifecycle.rebuild.queries import current_recipe, log_of, waves_visible_to
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Repository


@require_safe
def waves(request: HttpRequest) -> HttpResponse:
    """List the waves over bases that the reader may see, newest first."""
    user = reader(request)
    rows, state = waves_visible_to(user), request.GET.get("state", "")
    if state in RebuildWave.State.values:
        rows = rows.filter(state=state)
    rows = rows.defer("old_base__manifest", "old_base__config", "new_base__manifest", "new_base__config")
    page = keyset_page(rows, ("-id",), **cursors(request))
    counts = page_queries.counts_of([wave.pk for wave in page.rows], repositories_visible_to(user))
    context = {
        "page": page,
        "entries": [(wave, counts.get(wave.pk, page_queries.Counts())) for wave in page.rows],
        "state": state,
        "states": RebuildWave.State.values,
    }
    return render(request, "lifecycle/rebuild/waves.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def plan(request: HttpRequest) -> HttpResponse:
    """Choose a base and the image of it to stand on; the plan changes nothing, and its page shows all of it."""
    user = reader(request)
    bases = page_queries.bases_visible_to(user)
    if request.method == "POST":
        # Any base that the reader may see, also one on which nothing stands yet but a recipe that names it.
        form = PlanForm(repositories_visible_to(user).filter(source=None), request.POST)
        if form.is_valid():
            made = planning.plan_wave(form.reference_text, actor=user)
            return redirect("lifecycle:wave", made.pk)
    else:
        form = PlanForm(bases, initial=_asked_for(request, bases))
    field = cast(Any, form.fields["base"])
    shown = list(bases[: page_queries.BASES_MAX + 1])
    field.choices = [(base.pk, base.name) for base in shown[: page_queries.BASES_MAX]]
    context = {
        "form": form,
        "has_bases": bool(shown),
        "is_cut": len(shown) > page_queries.BASES_MAX,
        "may_rebuild": repositories_visible_to(user, Verb.IMAGE_REBUILD).exists(),
    }
    return render(request, "lifecycle/rebuild/plan.html", context, status=422 if form.errors else 200)


def _asked_for(request: HttpRequest, bases: Any) -> dict[str, Any]:
    """Return what the form begins with: the base and reference of the address, else the first base's newest tag."""
    key = request.GET.get("repository", "")
    chosen: Repository | None = bases.first()
    if key.isascii() and key.isdigit() and len(key) < 18:
        chosen = bases.filter(pk=int(key)).first() or chosen
    tag = page_queries.tag_to_plan(chosen) if chosen is not None else None
    reference = request.GET.get("reference", "")[:200] or (tag.name if tag is not None else "")
    return {"base": chosen.pk if chosen is not None else None, "reference": reference}


def _unchanged(request: HttpRequest, etag: str) -> HttpResponse | None:
    """Return 304 to a poll that has this state already, else None; a page that is loaded whole is never that."""
    return get_conditional_response(request, etag=f'"{etag}"') if getattr(request, "htmx", False) else None


@require_safe
def wave(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one wave: the plan before it is confirmed, then what becomes of each image. A poll gets the fragment."""
    user = reader(request)
    found = wave_for(user, pk)
    etag = page_queries.fingerprint(user, found)
    if (answer := _unchanged(request, etag)) is not None:
        return answer
    template = "lifecycle/rebuild/_wave.html" if getattr(request, "htmx", False) else "lifecycle/rebuild/wave.html"
    asked = request.GET.get("level", "")
    level = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 5 else 0
    context = {
        "detail": page_queries.wave_detail(user, found, whole_level=level),
        "wave": found,
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
    """Start what was planned."""
    done = services.confirm_wave(pk, actor=reader(request))
    messages.success(request, f"{done} has started.")
    return redirect("lifecycle:wave", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask once more, with the count; a POST starts nothing more. With script a dialog of the wave's page asks."""
    user = reader(request)
    if request.method == "POST":
        done = services.cancel_wave(pk, actor=user)
        messages.success(request, f"{done} is cancelled; what was finished stays.")
        return redirect("lifecycle:wave", pk)
    found = wave_for(user, pk)
    context = {"detail": page_queries.wave_detail(user, found), "wave": found}
    return render(request, "lifecycle/rebuild/cancel.html", context)


@require_POST
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Try again what failed and what that blocked."""
    done = services.retry_wave(pk, actor=reader(request))
    messages.success(request, f"{done} goes on: what failed or was blocked is tried again.")
    return redirect("lifecycle:wave", pk)


@require_safe
def log(request: HttpRequest, pk: int, job: int) -> HttpResponse:
    """Show the log of one image, its result on top; polled like the wave while it is built."""
    user = reader(request)
    found = job_for(user, pk, job)
    lines = log_of(found)
    shown = list(lines.order_by("-pk")[: page_queries.LOG_LINES])[::-1]
    etag = f"{found.pk}-{found.state}-{found.attempts}-{shown[-1].pk if shown else 0}"
    if (answer := _unchanged(request, etag)) is not None:
        return answer
    is_fragment = getattr(request, "htmx", False)
    context = {
        "wave": found.wave,
        "job": found,
        "row": page_queries.row_of(found),
        "lines": shown,
        "is_cut": len(shown) == page_queries.LOG_LINES and lines.count() > page_queries.LOG_LINES,
        "is_open": found.state in services.OPEN_STATES and found.wave.state == RebuildWave.State.RUNNING,
        "etag": etag,
    }
    response = render(request, f"lifecycle/rebuild/{'_log' if is_fragment else 'log'}.html", context)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


@require_safe
def raw_log(request: HttpRequest, pk: int, job: int) -> StreamingHttpResponse:
    """Stream the whole log of an image of a wave."""
    return raw_log_answer(log_of(job_for(reader(request), pk, job)), filename=f"rebuild-{pk}-{job}.log")


@require_POST
def watch(request: HttpRequest, repository: int) -> HttpResponse:
    """Watch a tag of a base: each move proposes a wave, and starts none."""
    user = reader(request)
    found = repository_for(user, repository)
    made = services.watch_base(found.pk, actor=user, tag=request.POST.get("tag", "")[:200])  # the service parses it
    messages.success(request, f"{made} is watched: when it moves, a rebuild is planned.")
    return redirect(f"{_address(found)}?tab=rebuilds")


@require_POST
def unwatch(request: HttpRequest, repository: int, watch: int) -> HttpResponse:
    """Watch a tag no longer."""
    found = repository_for(reader(request), repository)
    services.unwatch(found.pk, watch, actor=reader(request))
    messages.success(request, "It is watched no longer.")
    return redirect(f"{_address(found)}?tab=rebuilds")


@require_http_methods(["GET", "HEAD", "POST"])
def recipe(request: HttpRequest, repository: int) -> HttpResponse:
    """Store another revision of how a repository's image is built; a refused one comes back with its text."""
    user = reader(request)
    found = repository_for(user, repository)
    if found.source_id is not None:
        raise NotFound("What was promoted is not built; its family's own repository has the recipe.")
    in_force = current_recipe(found)
    allowed = may(user, Verb.IMAGE_AMEND if in_force else Verb.IMAGE_CREATE, repository=found)
    if request.method == "POST":
        repository_for(user, repository, Verb.IMAGE_AMEND if in_force else Verb.IMAGE_CREATE)
        form = RecipeForm(request.POST, request.FILES)
        if form.is_valid():
            given = form.cleaned_data
            kept = _kept_files(found, in_force) if given["keep_context"] and in_force is not None else {}
            made = services.put_recipe(
                found.pk,
                actor=user,
                containerfile=given["containerfile"],
                context=kept | given["context"],
                build_args=given["build_args"],
                tag=given["tag"],
            )
            messages.success(request, f"Revision {made.revision} is in force.")
            return redirect(f"{_address(found)}?tab=recipe")
    else:
        form = RecipeForm(initial=_initial(in_force))
    context = {"form": form, "repository": found, "recipe": in_force, "allowed": allowed}
    return render(request, "lifecycle/rebuild/recipe.html", context, status=422 if form.errors else 200)


def _address(repository: Repository) -> str:
    return reverse("lifecycle:repository", args=[repository.team.slug, repository.name])


def _initial(in_force: Recipe | None) -> dict[str, Any]:
    if in_force is None:
        return {}
    lines = "\n".join(f"{name}={value}" for name, value in in_force.build_args.items())
    return {"containerfile": in_force.containerfile, "tag": in_force.tag, "build_args": lines}


def _kept_files(repository: Repository, in_force: Recipe) -> dict[str, bytes]:
    """Return the files of the recipe in force, from the registry; none when it has no context."""
    if not in_force.context_digest:
        return {}
    with tempfile.TemporaryDirectory(prefix="gd-context-") as scratch:
        folder = Path(scratch)
        contexts.unpack(client_for(repository.registry), repository.name, in_force.context_digest, folder)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
