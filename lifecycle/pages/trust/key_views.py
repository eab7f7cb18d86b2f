"""The pages of the keys that sign promoted images."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader
from lifecycle.pages.trust.forms import SigningKeyForm
from lifecycle.trust import signing
from lifecycle.trust.models import SigningKey


@require_http_methods(["GET", "HEAD", "POST"])
def keys(request: HttpRequest) -> HttpResponse:
    """List the signing keys, and make a new one."""
    user = reader(request)
    why_not = signing.why_not_manage_keys(user)
    form = SigningKeyForm(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        refuse_if(why_not)
        if form.is_valid():
            with errors_shown_on(form, "name"):
                row = signing.create_key(form.cleaned_data["name"], actor=user)
                messages.success(request, f"{row} signs from now on. Give its public key to who verifies images.")
                return redirect("lifecycle:signing-keys")
    rows = SigningKey.objects.select_related("created_by")
    context = {
        "page": keyset_page(rows, ("-created_at", "-id"), **cursors(request)),
        "form": form,
        "may_manage": why_not is None,
    }
    return render(request, "lifecycle/trust/keys.html", context, status=422 if form.errors else 200)


@require_safe
def public_key(request: HttpRequest, name: str) -> HttpResponse:
    """Return the public key as a file, for cosign, skopeo and admission."""
    reader(request)
    row = signing.signing_key(name)
    headers = {"Content-Disposition": f'attachment; filename="{row.name}.pub"'}
    return HttpResponse(row.public_key, content_type="application/x-pem-file", headers=headers)


@require_http_methods(["GET", "HEAD", "POST"])
def retire_key(request: HttpRequest, name: str) -> HttpResponse:
    """Ask for confirmation, then retire a signing key."""
    user = reader(request)
    refuse_if(signing.why_not_manage_keys(user))
    row = signing.signing_key(name)
    if request.method == "POST":
        signing.retire_key(name, actor=user, reason=request.POST.get("reason", "").strip()[:500])
        messages.success(request, f"Signing key {row} retired.")
        return redirect("lifecycle:signing-keys")
    return render(request, "lifecycle/trust/retire_key.html", {"key": row, "active": signing.active_keys()})
