"""The pages of trusted sources, and the request to verify an image's signatures again."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.verbs import Verb
from lifecycle.authority.access import image_in, repository_of
from lifecycle.authority.queries import repositories_visible_to, teams_where
from lifecycle.authority.rights import require
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader
from lifecycle.pages.trust.forms import SourceForm
from lifecycle.trust import services
from lifecycle.trust.access import source_for, why_not_manage
from lifecycle.trust.models import TrustedSource
from lifecycle.trust.queries import sources_visible_to, untrusted_count


@require_safe
def sources(request: HttpRequest) -> HttpResponse:
    """List the trusted sources that the reader can see, and how many images stand on untrusted bases."""
    user = reader(request)
    context = {
        "page": keyset_page(sources_visible_to(user), ("name", "id"), **cursors(request)),
        "untrusted": untrusted_count(repositories_visible_to(user)),
        "may_create": user.is_superuser or teams_where(user, Verb.POLICY_MANAGE).exists(),
    }
    return render(request, "lifecycle/trust/sources.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_source(request: HttpRequest) -> HttpResponse:
    """Create a trusted source."""
    user = reader(request)
    form = SourceForm(user, None, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form, "name"):
            source = services.create_source(form.source_spec, actor=user)
            messages.success(request, f"Trusted source {source} created.")
            return redirect("lifecycle:trusted-source", source.pk)
    status = 422 if form.errors else 200
    return render(request, "lifecycle/trust/source.html", {"form": form, "source": None}, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def source(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a trusted source, and change it."""
    user = reader(request)
    row = source_for(user, pk)
    why_not = why_not_manage(user, row.is_site_wide, row.teams.all())
    form = SourceForm(user, row, request.POST if request.method == "POST" else None, initial=SourceForm.initial_of(row))
    if request.method == "POST":
        refuse_if(why_not)
        if form.is_valid():
            with errors_shown_on(form, "name"):
                services.change_source(pk, form.source_spec, actor=user, revision=_revision(request))
                messages.success(request, "Trusted source saved.")
                return redirect("lifecycle:trusted-source", pk)
    context = {"form": form, "source": row, "signers": row.signers.all(), "why_not": why_not}
    return render(request, "lifecycle/trust/source.html", context, status=422 if form.errors else 200)


def _revision(request: HttpRequest) -> int | None:
    """Return the revision that the form was opened with, so that nobody overwrites a later one."""
    text = request.POST.get("revision", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


@require_http_methods(["GET", "HEAD", "POST"])
def retire_source(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then retire a trusted source."""
    user = reader(request)
    row: TrustedSource = source_for(user, pk)
    if request.method == "POST":
        services.retire_source(pk, actor=user, reason=request.POST.get("reason", "").strip()[:500])
        messages.success(request, f"Trusted source {row} retired.")
        return redirect("lifecycle:trusted-sources")
    refuse_if(why_not_manage(user, row.is_site_wide, row.teams.all()))
    return render(request, "lifecycle/trust/retire.html", {"source": row})


@require_POST
def check(request: HttpRequest, team: str, name: str, digest: str) -> HttpResponse:
    """Read and verify the signatures of an image again."""
    user = reader(request)
    row = repository_of(repositories_visible_to(user), team, name)
    image = image_in(row, digest).image
    require(user, Verb.IMAGE_SCAN, repository=row, environment=row.environment)
    services.queue_check(image.pk, actor=user)
    messages.success(request, "The signatures are read again.")
    return redirect(f"{reverse('lifecycle:image', args=[team, name, digest])}?tab=signatures")
