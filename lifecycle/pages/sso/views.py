"""Pages for admins: providers of sign-in, the rules of each, and who can use passwords."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from lifecycle.core.errors import Malformed, UpstreamError
from lifecycle.core.paging import keyset_page
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader
from lifecycle.pages.sso.forms import ProviderForm, RuleForm, SampleForm
from lifecycle.sso import services
from lifecycle.sso.models import IdentityProvider
from lifecycle.sso.queries import callback_of, passwords_are_for_admins, provider_for, providers_for, rules_of


@require_http_methods(["GET", "HEAD", "POST"])
def providers(request: HttpRequest) -> HttpResponse:
    """List the providers, or decide who can sign in with a password (`passwords`: everybody or admins)."""
    user = reader(request)
    rows = providers_for(user)
    if request.method == "POST":
        services.set_policy(actor=user, passwords_only_for_admins=request.POST.get("passwords") == "admins")
        messages.success(request, "Saved.")
        return redirect("lifecycle:sign-in-providers")
    context = {
        "page": keyset_page(rows, ("slug", "id"), **cursors(request)),
        "passwords_for_admins": passwords_are_for_admins(),
    }
    return render(request, "lifecycle/sso/providers.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_provider(request: HttpRequest) -> HttpResponse:
    """Add a provider."""
    user = reader(request)
    providers_for(user)
    form = ProviderForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            row = services.create_provider(actor=user, **form.cleaned_data)
            messages.success(request, f"Provider {row} added. Tell it the callback address, then test the connection.")
            return redirect("lifecycle:sign-in-provider", row.slug)
    return render(request, "lifecycle/sso/new.html", {"form": form}, status=422 if form.errors else 200)


def _page(request: HttpRequest, row: IdentityProvider, *, status: int = 200, **more: object) -> HttpResponse:
    context = {
        "provider": row,
        "callback": callback_of(row.slug),
        "rules": rules_of(row),
        "form": ProviderForm.of(row, None),
        "rule_form": RuleForm(),
        "sample_form": SampleForm(),
        **more,
    }
    return render(request, "lifecycle/sso/provider.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def provider(request: HttpRequest, slug: str) -> HttpResponse:
    """Show a provider with its rules, and change it."""
    user = reader(request)
    row = provider_for(user, slug)
    if request.method != "POST":
        return _page(request, row)
    form = ProviderForm.of(row, request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            text = request.POST.get("revision", "")
            revision = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
            services.change_provider(slug, actor=user, revision=revision, **form.cleaned_data)
            messages.success(request, f"Provider {slug} saved.")
            return redirect("lifecycle:sign-in-provider", slug)
    return _page(request, row, form=form, status=422)


@require_POST
def test(request: HttpRequest, slug: str) -> HttpResponse:
    """Read the discovery document of the provider, and show what it answers."""
    user = reader(request)
    try:
        services.test_provider(slug, actor=user)
        messages.success(request, "The provider answers, and its discovery document is right.")
    except (UpstreamError, Malformed) as error:
        messages.error(request, error.message)
    return redirect("lifecycle:sign-in-provider", slug)


@require_POST
def preview(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what the rules do with sample claims. Changes nothing."""
    user = reader(request)
    row = provider_for(user, slug)
    form = SampleForm(request.POST)
    if not form.is_valid():
        return _page(request, row, sample_form=form, status=422)
    return _page(
        request, row, sample_form=form, outcomes=services.preview(slug, form.cleaned_data["sample"], actor=user)
    )


@require_POST
def add_rule(request: HttpRequest, slug: str) -> HttpResponse:
    """Show who gains and loses what by a new rule (`act`=check), or save it."""
    user = reader(request)
    row = provider_for(user, slug)
    form = RuleForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            if request.POST.get("act") == "check":
                effects = services.effects_of(slug, actor=user, add=form.rule())
                return _page(request, row, rule_form=form, effects=effects)
            services.create_rule(slug, form.rule(), actor=user)
            messages.success(request, "Rule added. It counts from the next sign-in of each person.")
            return redirect("lifecycle:sign-in-provider", slug)
    return _page(request, row, rule_form=form, status=422)


@require_http_methods(["GET", "HEAD", "POST"])
def delete_rule(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Ask for confirmation, with who loses what, then remove a rule."""
    user = reader(request)
    row = provider_for(user, slug)
    if request.method == "POST":
        services.delete_rule(slug, pk, actor=user)
        messages.success(request, "Rule removed. What only it gave has ended.")
        return redirect("lifecycle:sign-in-provider", slug)
    rule = services.rule_for(slug, pk, actor=user)
    effects = services.effects_of(slug, actor=user, remove=pk)
    return render(request, "lifecycle/sso/delete.html", {"provider": row, "rule": rule, "effects": effects})


@require_http_methods(["GET", "HEAD", "POST"])
def delete_provider(request: HttpRequest, slug: str) -> HttpResponse:
    """Ask for confirmation, then remove a provider with its rules."""
    user = reader(request)
    row = provider_for(user, slug)
    if request.method == "POST":
        services.delete_provider(slug, actor=user)
        messages.success(request, f"Provider {slug} removed.")
        return redirect("lifecycle:sign-in-providers")
    return render(request, "lifecycle/sso/delete.html", {"provider": row})
