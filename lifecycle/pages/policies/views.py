"""Pages of policies: the rule sets, the editor with its what-if, the try-out box, and waivers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from lifecycle.authority.access import environment_for, image_for, repository_of, team_for
from lifecycle.authority.queries import environments_visible_to, repositories_visible_to, teams_visible_to
from lifecycle.core.errors import NotFound
from lifecycle.core.paging import keyset_page
from lifecycle.core.reasons import refuse_if
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.policies.forms import (
    DecisionForm,
    EditorForm,
    RuleForm,
    TryForm,
    WaiverForm,
    initial_for,
    initial_of,
)
from lifecycle.pages.requests import chosen, cursors, reader
from lifecycle.policies import cel, services, waivers
from lifecycle.policies.access import scope_for, waiver_for, why_not_manage
from lifecycle.policies.models import Waiver
from lifecycle.policies.queries import effective_rules, newest, revisions_visible_to, rule_set_of, waivers_visible_to
from lifecycle.policies.types import Scope
from lifecycle.policy.catalogue import KINDS
from lifecycle.policy.expressions import completions, names_of, values_of
from lifecycle.policy.rulesets import RULES_MAX
from lifecycle.promotion.what_if import WhatIf, what_if

_PREFIX = "rule-{}"
_OFFERED_MAX = 200  # names of one kind


@require_safe
def policies(request: HttpRequest) -> HttpResponse:
    """List the rule sets that the reader can see: of the site, their teams and environments."""
    user = reader(request)
    page = keyset_page(newest(revisions_visible_to(user)), ("-id",), **cursors(request))
    context = {
        "page": page,
        "teams": teams_visible_to(user).order_by("slug")[:200],
        "environments": environments_visible_to(user).order_by("team__slug", "position")[:200],
        "kinds": KINDS.values(),
    }
    return render(request, "lifecycle/policies/policies.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def policy(request: HttpRequest, scope: str) -> HttpResponse:
    """Show the rules of a scope. POST adds a rule to the form, shows the what-if of a draft, or saves it."""
    place = scope_for(reader(request), scope)
    if request.method == "POST":
        refuse_if(why_not_manage(reader(request), place))
        return _changed(request, place)
    current = rule_set_of(place)
    rules = [
        RuleForm(rule.kind, prefix=_PREFIX.format(number), initial=initial_of(rule))
        for number, rule in enumerate(current.rules)
    ]
    form = EditorForm(initial={"revision": current.number, "count": len(rules)})
    return _editor(request, place, form, rules)


def _changed(request: HttpRequest, place: Scope) -> HttpResponse:
    form, rules, act = EditorForm(request.POST), _posted_rules(request), request.POST.get("act", "")
    if act == "add":
        kind = request.POST.get("add", "")
        if kind in KINDS and len(rules) < RULES_MAX:
            rules.append(RuleForm(kind, prefix=_PREFIX.format(len(rules)), initial=initial_for(kind)))
        draft = EditorForm(initial={**request.POST.dict(), "count": len(rules)})
        return _editor(request, place, draft, rules)
    result = None
    if all([form.is_valid(), *(rule.is_valid() for rule in rules)]):
        with errors_shown_on(form):
            records = [rule.as_record() for rule in rules if not rule.cleaned_data["remove"]]
            if act == "what-if":
                result = what_if(services.draft_of(place, records), reader=reader(request))
            else:
                return _saved(request, place, form, records)
    elif not form.errors:
        form.add_error(None, "A rule has a wrong value. It is marked below.")
    return _editor(request, place, form, rules, result=result, status=200 if result else 422)


def _saved(request: HttpRequest, place: Scope, form: EditorForm, records: list[dict[str, Any]]) -> HttpResponse:
    saved = services.save_policy(
        place,
        records,
        actor=reader(request),
        seen=form.cleaned_data["revision"],
        note=form.cleaned_data["note"],
        cases=rule_set_of(place).cases,
    )
    text = f"Revision {saved.number} of {place.words} saved." if saved else "Nothing changed."
    messages.success(request, text)
    return redirect("lifecycle:policy", place.name)


def _posted_rules(request: HttpRequest) -> list[RuleForm]:
    """Return the rule forms of a POST. A form whose kind is unknown is left out: no page of ours sends one."""
    count = request.POST.get("count", "")
    number = int(count) if count.isascii() and count.isdigit() and len(count) < 4 else 0
    kinds = [(n, request.POST.get(f"{_PREFIX.format(n)}-kind", "")) for n in range(min(number, RULES_MAX))]
    return [RuleForm(kind, request.POST, prefix=_PREFIX.format(n)) for n, kind in kinds if kind in KINDS]


def _editor(
    request: HttpRequest,
    place: Scope,
    form: EditorForm,
    rules: list[RuleForm],
    *,
    result: WhatIf | None = None,
    status: int = 200,
) -> HttpResponse:
    above = effective_rules(place.team, None).rules if place.team and place.environment else ()
    context = {
        "place": place,
        "form": form,
        "rules": rules,
        "kinds": KINDS.values(),
        "why_not": why_not_manage(reader(request), place),
        "current": rule_set_of(place),
        "above": above or (rule_set_of(Scope()).rules if place.team else ()),
        "result": result,
        "revisions": revisions_visible_to(reader(request))
        .filter(
            policy__environment=place.environment, policy__team=None if place.environment else place.team
        )
        .order_by("-number")[:10],
    }  # fmt: skip
    return render(request, "lifecycle/policies/policy.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def try_expression(request: HttpRequest) -> HttpResponse:
    """Evaluate an expression over the facts of an image that the reader can see."""
    context: dict[str, Any] = {"form": TryForm(initial=request.GET.dict()), "names": completions()}
    if request.method != "POST":
        return render(request, "lifecycle/policies/try.html", context)
    form, status = TryForm(request.POST), 422
    if form.is_valid():
        with errors_shown_on(form, "digest"):
            context |= _tried(request, **form.cleaned_data)
            status = 200
    return render(request, "lifecycle/policies/try.html", context | {"form": form}, status=status)


def _tried(request: HttpRequest, expression: str, digest: str, environment: str) -> dict[str, Any]:
    user = reader(request)
    image = image_for(user, digest.strip())
    rows = repositories_visible_to(user).select_related("team", "source__team")
    row = (
        rows.filter(repository_images__image=image, repository_images__removed_at=None)
        .order_by("environment_id", "name")
        .first()
    )
    if row is None:
        raise NotFound("Image not found, or you don't have access.")
    repository = row.source or row
    place = environment_for(user, team=repository.team.slug, slug=environment) if environment else None
    (facts,) = facts_of_images([(image, repository, place)], names_of(expression))
    values = values_of(facts, [expression])
    (answer,) = cel.evaluate([expression], values)
    return {"answer": answer, "values": values}


@require_safe
def waiver_list(request: HttpRequest) -> HttpResponse:
    """List the waivers that the reader can see, newest first."""
    user = reader(request)
    state = chosen(request, "state", Waiver.State.values)
    rows = waivers_visible_to(user)
    page = keyset_page(rows.filter(state=state) if state else rows, ("-id",), **cursors(request))
    context = {"page": page, "state": state, "states": Waiver.State.values}
    return render(request, "lifecycle/policies/waivers.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_waiver(request: HttpRequest) -> HttpResponse:
    """Show the form of a waiver, filled from the URL, or request it."""
    if request.method != "POST":
        return _waiver_form(request, WaiverForm(initial=request.GET.dict()))
    form = WaiverForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            made = _requested(request, **form.cleaned_data)
            messages.success(request, f"{made} requested. Another user must approve it.")
            return redirect("lifecycle:waiver", made.pk)
    return _waiver_form(request, form, status=422)


def _waiver_form(request: HttpRequest, form: WaiverForm, *, status: int = 200) -> HttpResponse:
    """Return the form with what the browser offers while somebody types: names that the reader can see."""
    user = reader(request)
    revisions = newest(revisions_visible_to(user)).order_by("-pk")[:_OFFERED_MAX]
    offered = {
        "team": teams_visible_to(user).order_by("slug").values_list("slug", flat=True)[:_OFFERED_MAX],
        "rule": sorted({str(rule["key"]) for row in revisions for rule in row.rules if "key" in rule})[:_OFFERED_MAX],
        "repository": repositories_visible_to(user)
        .filter(source=None)
        .order_by("name")
        .values_list("name", flat=True)[:_OFFERED_MAX],
        "environment": sorted(set(environments_visible_to(user).values_list("slug", flat=True)))[:_OFFERED_MAX],
    }
    context = {"form": form, "offered": offered.items()}
    return render(request, "lifecycle/policies/new_waiver.html", context, status=status)


def _requested(request: HttpRequest, **values: Any) -> Waiver:
    user, team = reader(request), team_for(reader(request), values.pop("team"))
    repository, environment = values.pop("repository"), values.pop("environment")
    return waivers.request_waiver(
        team,
        values.pop("rule"),
        actor=user,
        repository=repository_of(repositories_visible_to(user), team.slug, repository) if repository else None,
        environment=environment_for(user, team=team.slug, slug=environment) if environment else None,
        until=datetime.combine(values.pop("until"), time(), tzinfo=UTC),
        **values,
    )


@require_safe
def waiver(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one waiver, with what the reader can do about it."""
    return _waiver_page(request, waiver_for(reader(request), pk), DecisionForm())


def _waiver_page(request: HttpRequest, row: Waiver, form: DecisionForm, *, status: int = 200) -> HttpResponse:
    context = {
        "waiver": row,
        "form": form,
        "why_not_decide": waivers.why_not_decide(reader(request), row),
        "why_not_revoke": waivers.why_not_revoke(reader(request), row),
    }
    return render(request, "lifecycle/policies/waiver.html", context, status=status)


@require_POST
def decide_waiver(request: HttpRequest, pk: int, act: str) -> HttpResponse:
    """Approve, reject or revoke a waiver."""
    acts: dict[str, Callable[..., Waiver]] = {
        "approve": waivers.approve_waiver,
        "reject": waivers.reject_waiver,
        "revoke": waivers.revoke_waiver,
    }
    form = DecisionForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form, "reason"):
            row = acts[act](pk, actor=reader(request), reason=form.cleaned_data["reason"])
            messages.success(request, f"{row} {row.state}.")
            return redirect("lifecycle:waiver", row.pk)
    return _waiver_page(request, waiver_for(reader(request), pk), form, status=422)
