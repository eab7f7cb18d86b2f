"""The pages of clusters: list, add, settings, bindings and secrets."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.verbs import Verb
from lifecycle.admission.access import decision_for
from lifecycle.admission.ending import delete_cluster, what_ends_with, why_not_delete
from lifecycle.admission.forecasting import Forecast, forecast, forecast_of_bindings
from lifecycle.admission.manifest import AGENT_IMAGE
from lifecycle.admission.queries import open_debts
from lifecycle.admission.services import bundle_for, manifest_for, review_debt
from lifecycle.authority.access import team_for
from lifecycle.authority.queries import teams_where
from lifecycle.clusters import services
from lifecycle.clusters.access import cluster_for, why_not_manage
from lifecycle.clusters.agents import create_agent_token
from lifecycle.clusters.models import Cluster, ClusterSecret, Mode
from lifecycle.clusters.queries import bindings_of, clusters_visible_to, valid_secrets
from lifecycle.clusters.types import BindingWish
from lifecycle.core.errors import Conflict, Malformed, StaleVersion
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.pages.clusters.forms import (
    BindingForm,
    DeleteForm,
    NewClusterForm,
    ReviewForm,
    SecretForm,
    SettingsForm,
    bindings_form,
)
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader

_DEBTS_SHOWN = 20
_FORECAST_SHOWN = 200
_NOT_REPEATED = frozenset({"csrfmiddlewaretoken", "revision", "confirmed"})


@require_safe
def clusters(request: HttpRequest) -> HttpResponse:
    """List the clusters of the reader's teams."""
    user = reader(request)
    context = {
        "page": keyset_page(clusters_visible_to(user), ("slug", "id"), **cursors(request)),
        "may_create": teams_where(user, Verb.ENVIRONMENT_MANAGE).exists(),
    }
    return render(request, "lifecycle/clusters/clusters.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_cluster(request: HttpRequest) -> HttpResponse:
    """Add a cluster to a team."""
    user = reader(request)
    form = NewClusterForm(user, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            values = form.cleaned_data
            made = services.create_cluster(
                team_for(user, values["team"]), values["slug"], actor=user, kind=values["kind"], **form.settings()
            )
            messages.success(request, f"{made} added. Bind its namespaces, then create a secret.")
            return redirect("lifecycle:cluster", made.slug)
    return render(request, "lifecycle/clusters/new.html", {"form": form}, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def cluster(request: HttpRequest, slug: str) -> HttpResponse:
    """Show a cluster, and change its settings."""
    user = reader(request)
    row = cluster_for(user, slug)
    if request.method != "POST":
        return _page(request, row)
    refuse_if(why_not_manage(user, row.team))
    form = SettingsForm(request.POST)
    if form.is_valid():
        begins = form.cleaned_data["mode"] == Mode.ENFORCE and row.mode != Mode.ENFORCE
        if begins and "confirmed" not in request.POST:
            return _forecast(request, row, form)
        with errors_shown_on(form):
            services.change_cluster(slug, actor=user, revision=_revision(request), **form.settings())
            messages.success(request, "Settings saved.")
            return redirect("lifecycle:cluster", slug)
    return _page(request, row, status=422, form=form)


@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Say what ends with a cluster, and delete it."""
    user = reader(request)
    row = cluster_for(user, slug)
    refuse_if(why_not_manage(user, row.team))
    form = DeleteForm(row, request.POST if request.method == "POST" else None)
    if form.is_valid():
        with errors_shown_on(form):
            delete_cluster(slug, actor=user, revision=_revision(request))
            messages.success(request, f"{row} deleted. Remove its webhooks and the agent from the cluster.")
            return redirect("lifecycle:clusters")
    context = {"cluster": row, "ends": what_ends_with(row), "why_not": why_not_delete(user, row), "form": form}
    return render(request, "lifecycle/clusters/delete.html", context, status=422 if form.errors else 200)


@require_safe
def forecast_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what enforce would refuse of what runs in a cluster."""
    return _forecast(request, cluster_for(reader(request), slug), None)


def _forecast(request: HttpRequest, row: Cluster, form: SettingsForm | None) -> HttpResponse:
    """Show it; with the settings to confirm, before enforcement begins."""
    found = forecast(row, actor=reader(request))
    context = {
        "cluster": row,
        "found": found,
        "refused": found.refused[:_FORECAST_SHOWN],
        "annotated": found.annotated[:_FORECAST_SHOWN],
        "form": form,
        "fields": [(field.html_name, field.value()) for field in form] if form else [],
        "revision": request.POST.get("revision", ""),
    }
    return render(request, "lifecycle/clusters/forecast.html", context)


def _confirm_bindings(request: HttpRequest, row: Cluster, found: Forecast) -> HttpResponse:
    """Show what the new bindings would refuse, with the bindings to confirm."""
    context = {
        "cluster": row,
        "found": found,
        "refused": found.refused[:_FORECAST_SHOWN],
        "annotated": found.annotated[:_FORECAST_SHOWN],
        "form": True,
        "are_bindings": True,
        "fields": [(name, value) for name, value in request.POST.items() if name not in _NOT_REPEATED],
        "revision": request.POST.get("revision", ""),
    }
    return render(request, "lifecycle/clusters/forecast.html", context)


@require_POST
def bindings(request: HttpRequest, slug: str) -> HttpResponse:
    """Replace the bindings of a cluster."""
    user = reader(request)
    row = cluster_for(user, slug)
    refuse_if(why_not_manage(user, row.team))
    forms = bindings_form(user, list(bindings_of(row)), request.POST)
    problem = "" if forms.is_valid() else "Check the marked rows."
    if not problem:
        wishes = [_wish(form) for form in forms if form.cleaned_data.get("pattern")]
        try:
            if "confirmed" not in request.POST:
                found = forecast_of_bindings(slug, wishes, actor=user)
                if found.refused:
                    return _confirm_bindings(request, row, found)
            services.set_bindings(slug, wishes, actor=user, revision=_revision(request))
        except (Malformed, Conflict, StaleVersion) as error:
            problem = error.message
        else:
            messages.success(request, "Bindings saved.")
            return redirect("lifecycle:cluster", slug)
    return _page(request, row, status=422, bindings_form=forms, bindings_problem=problem)


@never_cache
@require_POST
def secret(request: HttpRequest, slug: str) -> HttpResponse:
    """Make a new secret, and show it once."""
    user = reader(request)
    row = cluster_for(user, slug)
    form = SecretForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form), transaction.atomic():
            kind, token = form.cleaned_data["kind"], ""
            made, text = None, ""
            if kind in {SecretForm.AGENT, SecretForm.BOTH}:
                token = create_agent_token(slug, actor=user)
            if kind != SecretForm.AGENT:
                wanted = ClusterSecret.Kind.ADMISSION if kind == SecretForm.BOTH else kind
                made, text = services.create_secret(slug, wanted, actor=user)
            context = {
                "cluster": row, "made": made, "secret": text, "token": token, "address": settings.PUBLIC_URL,
                "manifest": _filled_manifest(row, made.kind if made is not None else "", text, token),
            }  # fmt: skip
            return render(request, "lifecycle/clusters/secret.html", context)
    refuse_if(why_not_manage(user, row.team))
    return _page(request, row, status=422, secret_form=form)


@require_safe
def manifest(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the manifest of a cluster as a file, with placeholders for secrets."""
    row = cluster_for(reader(request), slug)
    answer = HttpResponse(manifest_for(row), content_type="application/yaml")
    answer["Content-Disposition"] = f'attachment; filename="gravingdock-{row.slug}.yaml"'
    return answer


@require_POST
def review(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Say whether a break-glass in the cluster was justified."""
    user = reader(request)
    row = cluster_for(user, slug)
    form = ReviewForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            debt = review_debt(row, pk, actor=user, **form.cleaned_data)
            messages.success(request, f"Reviewed: {debt.workload}.")
            return redirect("lifecycle:cluster", slug)
    return _page(request, row, status=422, review_form=form)


@require_safe
def why(request: HttpRequest, key: str) -> HttpResponse:
    """Show a decision of admission: each image, why it may not start, and who can resolve it."""
    return render(request, "lifecycle/clusters/why.html", {"decision": decision_for(reader(request), key)})


def _page(request: HttpRequest, row: Cluster, *, status: int = 200, **forms: Any) -> HttpResponse:
    user = reader(request)
    rows = list(bindings_of(row))
    secrets = [secret for kind in ClusterSecret.Kind.values for secret in _secrets(row, kind)]
    why_not = why_not_manage(user, row.team)
    context = {
        "cluster": row,
        "bindings": rows,
        "secrets": secrets,
        "debts": open_debts(row)[:_DEBTS_SHOWN],
        "review_form": ReviewForm(),
        "why_not": why_not,
        "trusted": bundle_for(row) if row.kind == Cluster.Kind.KUBERNETES else None,
        "form": SettingsForm(initial=SettingsForm.values_of(row)),
        "secret_form": SecretForm(),
        "bindings_form": None if why_not else forms.get("bindings_form") or bindings_form(user, rows),
    }
    return render(request, "lifecycle/clusters/cluster.html", context | forms, status=status)


def _filled_manifest(row: Cluster, kind: str, secret: str, token: str) -> str:
    """Return the manifest with what was just made in it; "" for another kind of cluster or secret."""
    is_admission = kind == ClusterSecret.Kind.ADMISSION
    if row.kind != Cluster.Kind.KUBERNETES or not (is_admission or token):
        return ""
    filled = manifest_for(row).replace("${AGENT_IMAGE}", AGENT_IMAGE)
    filled = filled.replace("${ADMISSION_SECRET}", secret) if is_admission else filled
    return filled.replace("${AGENT_TOKEN}", token) if token else filled


def _secrets(row: Cluster, kind: str) -> list[ClusterSecret]:
    return list(valid_secrets(kind).filter(cluster=row).select_related("created_by").order_by("-pk"))


def _wish(form: BindingForm) -> BindingWish:
    values = form.cleaned_data
    hosts = tuple(values["allowed_hosts"].replace(",", " ").split())
    return BindingWish(values["pattern"], values["environment"], values["mode"], hosts)


def _revision(request: HttpRequest) -> int | None:
    """Return the revision of the page that was changed; None for anything but a number."""
    text = request.POST.get("revision", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
