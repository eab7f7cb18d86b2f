"""Pages that change a whole repository: who sees it, whether it is archived, and its deletion."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.verbs import Verb
from lifecycle.authority.access import repository_of
from lifecycle.authority.queries import images_visible_to, repositories_open_to
from lifecycle.authority.rights import require
from lifecycle.ingest.openness import set_archived, set_visibility
from lifecycle.ingest.removing import contents_of, delete_repository, kept_by, why_not_delete_repository
from lifecycle.lineage.models import Ancestry
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.registry.forms import DeletionForm, VisibilityForm
from lifecycle.pages.registry.views import repository_page, settings_url
from lifecycle.pages.requests import reader
from lifecycle.registry.models import RepositoryImage


@require_POST
def show_to(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Change who can see and pull a repository without a role."""
    row, form = repository_of(repositories_open_to(reader(request)), team, name), VisibilityForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "visibility"):
            set_visibility(row.pk, form.cleaned_data["visibility"], actor=reader(request))
            messages.success(request, f"{row} is {form.cleaned_data['visibility']} now.")
            return redirect(settings_url(row))
    return repository_page(request, row, "settings", status=422, visibility_form=form)


@require_POST
def archive(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Archive a repository, or restore it with `restore`."""
    row = repository_of(repositories_open_to(reader(request)), team, name)
    changed = set_archived(row.pk, "restore" not in request.POST, actor=reader(request))
    messages.success(request, f"{row} is {'archived' if changed.is_archived else 'restored'}.")
    return redirect(settings_url(row))


@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest, team: str, name: str) -> HttpResponse:
    """Ask for confirmation, with what goes and what stands on it, then delete a whole repository."""
    user = reader(request)
    row = repository_of(repositories_open_to(user), team, name)
    form = DeletionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "name"):
            job = delete_repository(row.pk, actor=user, name=form.cleaned_data["name"].strip())
            messages.success(request, f"Deleting {row}.")
            return redirect("lifecycle:job", job.pk)
    require(user, Verb.IMAGE_DELETE, repository=row, environment=row.environment)
    held = RepositoryImage.objects.filter(repository=row, removed_at=None).values("image")
    derived = Ancestry.objects.filter(ancestor__in=held).exclude(descendant__in=held).values("descendant")
    context = {
        "repository": row,
        "form": form,
        "contents": contents_of(row),
        "kept_by": kept_by(row),
        "derived_count": images_visible_to(user).filter(pk__in=derived).count(),
        "why_not": why_not_delete_repository(user, row),
    }
    status = 422 if request.method == "POST" else 200
    return render(request, "lifecycle/registry/remove.html", context, status=status)
