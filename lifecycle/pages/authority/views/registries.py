"""The pages of registries, for admins: list, add, change, test and remove."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from lifecycle.authority.access import registries_for, registry_for
from lifecycle.authority.services import registries as services
from lifecycle.core.paging import keyset_page
from lifecycle.pages.authority.registry_forms import RegistryForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader


@require_safe
def registries(request: HttpRequest) -> HttpResponse:
    """List the managed registry and those that admins added."""
    rows = registries_for(reader(request))
    context = {"page": keyset_page(rows, ("name", "id"), **cursors(request))}
    return render(request, "lifecycle/authority/registries.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_registry(request: HttpRequest) -> HttpResponse:
    """Add a registry."""
    user = reader(request)
    registries_for(user)
    form = RegistryForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            row = services.add_registry(actor=user, **form.values())
            messages.success(request, f"Registry {row} added. Test the connection next.")
            return redirect("lifecycle:registry", row.pk)
    context = {"form": form, "registry": None}
    return render(request, "lifecycle/authority/registry.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def registry(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a registry, and change it."""
    user = reader(request)
    row = registry_for(user, pk)
    form = RegistryForm.of(row, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            text = request.POST.get("revision", "")
            revision = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
            services.change_registry(pk, actor=user, revision=revision, **form.values())
            messages.success(request, f"Registry {row} saved.")
            return redirect("lifecycle:registry", pk)
    context = {"form": form, "registry": row}
    return render(request, "lifecycle/authority/registry.html", context, status=422 if form.errors else 200)


@require_POST
def test(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask a registry whether it is one and takes our credentials, and show what it answers."""
    result = services.test_registry(pk, actor=reader(request))
    (messages.success if result.is_ok else messages.error)(request, result.text)
    return redirect("lifecycle:registry", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then remove a registry."""
    user = reader(request)
    row = registry_for(user, pk)
    if request.method == "POST":
        services.remove_registry(pk, actor=user)
        messages.success(request, f"Registry {row} removed.")
        return redirect("lifecycle:registries")
    context = {"registry": row, "why_not": services.why_not_remove_registry(row)}
    return render(request, "lifecycle/authority/remove_registry.html", context)
