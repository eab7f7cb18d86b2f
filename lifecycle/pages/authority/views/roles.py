"""Pages of roles: their verbs with descriptions, and actions on custom roles."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.models import Role
from accounts.verbs import Verb
from lifecycle.authority import services
from lifecycle.authority.access import role_called
from lifecycle.authority.constants import VERB_GROUPS, VERB_WORDS
from lifecycle.authority.queries import roles_with_counts
from lifecycle.authority.rights import is_above_grants
from lifecycle.authority.what_if import Difference, what_if_role
from lifecycle.core.errors import NotPermitted
from lifecycle.pages.authority.forms import NewRoleForm, RoleForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import reader


@dataclass(frozen=True, slots=True)
class VerbRow:
    """One verb of the role form, with its description and the state of its check box."""

    verb: Verb
    words: str
    is_held: bool
    is_strong: bool


@dataclass(frozen=True, slots=True)
class VerbGroup:
    title: str
    rows: tuple[VerbRow, ...]

    @property
    def held(self) -> int:
        return sum(row.is_held for row in self.rows)


def _groups(held: set[str]) -> list[VerbGroup]:
    return [
        VerbGroup(
            title,
            tuple(
                VerbRow(verb, VERB_WORDS[verb], verb.value in held, verb == Verb.PROMOTION_BREAKGLASS) for verb in verbs
            ),
        )
        for title, verbs in VERB_GROUPS
    ]


def _page(
    request: HttpRequest,
    role: Role | None,
    form: RoleForm,
    held: set[str],
    *,
    status: int = 200,
    what_if: list[Difference] | None = None,
) -> HttpResponse:
    is_admin = is_above_grants(reader(request))
    context = {
        "roles": roles_with_counts().order_by("-is_builtin", "slug"),
        "role": role,
        "form": form,
        "groups": _groups(held),
        "is_admin": is_admin,
        "may_change": is_admin and (role is None or not role.is_builtin),
        "what_if": what_if,
        "asks_and_votes": {Verb.PROMOTION_REQUEST, Verb.PROMOTION_APPROVE} <= held,
    }
    return render(request, "lifecycle/authority/role.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def roles(request: HttpRequest) -> HttpResponse:
    """Redirect to the first role, show the form of a new role (`?new`), or create a role (POST)."""
    user = reader(request)
    if request.method == "POST":
        form = NewRoleForm(request.POST)
        if not is_above_grants(user):
            raise NotPermitted("Only admins can create and change roles. Ask an admin.")
        if form.is_valid():
            with errors_shown_on(form):
                new_role = services.create_role(actor=user, **form.cleaned_data)
                messages.success(request, f"Role {new_role} created. Grant it on a team page.")
                return redirect("lifecycle:role", new_role.slug)
        return _page(request, None, form, set(request.POST.getlist("verbs")), status=422)
    if "new" in request.GET:
        if not is_above_grants(user):
            raise NotPermitted("Only admins can create and change roles. Ask an admin.")
        return _page(request, None, NewRoleForm(), set())
    return redirect("lifecycle:role", "viewer")


@require_http_methods(["GET", "HEAD", "POST"])
def role(request: HttpRequest, slug: str) -> HttpResponse:
    """Show or change the verbs of a role. A change takes effect immediately for all users with the role."""
    role = role_called(slug)
    if request.method == "POST":
        form = RoleForm(request.POST)
        if not is_above_grants(reader(request)):
            raise NotPermitted("Only admins can create and change roles. Ask an admin.")
        if form.is_valid() and request.POST.get("act") == "what-if":
            verbs = form.cleaned_data["verbs"]
            return _page(request, role, form, set(verbs), what_if=what_if_role(slug, verbs, actor=reader(request)))
        if form.is_valid():
            with errors_shown_on(form):
                services.change_role(slug, actor=reader(request), **form.cleaned_data)
                messages.success(request, f"Role {role} saved.")
                return redirect("lifecycle:role", slug)
        return _page(request, role, form, set(request.POST.getlist("verbs")), status=422)
    return _page(request, role, RoleForm(initial={"name": role.name}), set(role.verbs))


@require_POST
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Delete a custom role without grants."""
    services.delete_role(slug, actor=reader(request))
    messages.success(request, f"Role {slug} deleted.")
    return redirect("lifecycle:roles")
