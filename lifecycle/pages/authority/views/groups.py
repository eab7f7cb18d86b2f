"""Pages of groups: the list, and one group with its members and roles."""

from __future__ import annotations

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Group
from accounts.verbs import Verb
from lifecycle.authority import services
from lifecycle.authority.access import group_for
from lifecycle.authority.queries import (
    grants_of_group,
    groups_with_counts,
    groups_with_member,
    members_seen,
    sees_members,
    teams_where,
)
from lifecycle.authority.rights import is_above_grants
from lifecycle.authority.services.groups import why_not_change_members, why_not_manage
from lifecycle.core.errors import NotPermitted
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.pages.authority.forms import GroupForm, GroupMemberForm, TeamNameForm
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import cursors, reader


@require_http_methods(["GET", "HEAD", "POST"])
def groups(request: HttpRequest) -> HttpResponse:
    """List the groups that the reader can see, or create one (admins, and owners for their teams)."""
    user = reader(request)
    teams = list(teams_where(user, Verb.TEAM_MANAGE).order_by("slug").values_list("slug", flat=True))
    is_admin = is_above_grants(user)
    form = GroupForm(teams, request.POST if request.method == "POST" else None, is_admin=is_admin)
    if request.method == "POST":
        if not teams and not is_admin:
            raise NotPermitted("You need team.manage in a team to create groups. Ask an owner of the team.")
        if form.is_valid():
            with errors_shown_on(form, "slug"):
                group = services.create_group(actor=user, **form.cleaned_data)
                messages.success(request, f"Group {group} created.")
                return redirect("lifecycle:group", group.pk)
    context = {
        "page": keyset_page(groups_with_counts(user), ("slug", "id"), **cursors(request)),
        "form": form,
        "may_create": is_admin or bool(teams),
    }
    return render(request, "lifecycle/authority/groups.html", context, status=422 if form.errors else 200)


def _page(request: HttpRequest, group: Group, *, status: int = 200, **forms: Form) -> HttpResponse:
    user = reader(request)
    context = {
        "group": group,
        "page": keyset_page(members_seen(user, group), ("id",), **cursors(request)),
        "sees_members": sees_members(user, group),
        "grants": grants_of_group(user, group),
        "containers": groups_with_member(user, group),
        "why_not_manage": why_not_manage(user, group),
        "why_not_change_members": why_not_change_members(user, group),
        "form": GroupMemberForm(),
        "name_form": TeamNameForm(initial={"name": group.name}),
        **forms,
    }
    return render(request, "lifecycle/authority/group.html", context, status=status)


@require_safe
def group(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a group: its members, its roles in teams that the reader sees, and where the members come from."""
    return _page(request, group_for(reader(request), pk))


@require_POST
def rename(request: HttpRequest, pk: int) -> HttpResponse:
    """Change the display name of a group."""
    group = group_for(reader(request), pk)
    refuse_if(why_not_manage(reader(request), group))
    form = TeamNameForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "name"):
            services.rename_group(pk, actor=reader(request), name=form.cleaned_data["name"])
            messages.success(request, "Name saved.")
            return redirect("lifecycle:group", pk)
    return _page(request, group, name_form=form, status=422)


@require_POST
def add_member(request: HttpRequest, pk: int) -> HttpResponse:
    """Add a person or a group."""
    user = reader(request)
    group = group_for(user, pk)
    refuse_if(why_not_change_members(user, group))  # before the form shows whether the account exists
    form = GroupMemberForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "name"):
            kind, name = form.cleaned_data["kind"], form.cleaned_data["name"]
            services.add_to_group(pk, actor=user, **{"username" if kind == "person" else "group": name})
            messages.success(request, f"{name} added to {group}.")
            return redirect("lifecycle:group", pk)
    return _page(request, group, form=form, status=422)


@require_POST
def remove_member(request: HttpRequest, pk: int, member: int) -> HttpResponse:
    """Remove a member."""
    services.remove_from_group(pk, member, actor=reader(request))
    messages.success(request, "Member removed. The roles through this group ended.")
    return redirect("lifecycle:group", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, with what ends, then delete a group."""
    user = reader(request)
    group = group_for(user, pk)
    if request.method == "POST":
        services.delete_group(pk, actor=user)
        messages.success(request, f"Group {group} deleted.")
        return redirect("lifecycle:groups")
    refuse_if(why_not_manage(user, group))
    context = {"group": group, "grants": grants_of_group(user, group), "containers": groups_with_member(user, group)}
    return render(request, "lifecycle/authority/delete_group.html", context)
