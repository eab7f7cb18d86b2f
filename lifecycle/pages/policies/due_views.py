"""The page of due dates: the table, and for admins its editor with a what-if."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from lifecycle.core import clock
from lifecycle.core.reasons import refuse_if
from lifecycle.core.severities import READING_ORDER
from lifecycle.evidence.due import count_overdue
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import reader
from lifecycle.policies.due_dates import NOTE_MAX, due_dates, save_due_dates, why_not_save
from lifecycle.policy.due_dates import ROWS_MAX, DueRow, rows_of

_BLANK: Final = 3  # empty rows at the end of the editor
_NAMES: Final = ("severity", "exploited", "min_epss_percent", "fix", "exposure", "days")


class DueForm(forms.Form):
    """What is stored beside the rows."""

    note = forms.CharField(
        max_length=NOTE_MAX, required=False, label="Note", help_text="Why it changes, for the audit log.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )  # fmt: skip
    revision = forms.IntegerField(min_value=0, widget=forms.HiddenInput)


@require_http_methods(["GET", "HEAD", "POST"])
def due_date_table(request: HttpRequest) -> HttpResponse:
    """Show the table; an admin tries and saves another one."""
    user, table = reader(request), due_dates()
    context: dict[str, Any] = {"table": table, "why_not": why_not_save(user), "what_if": None}
    if request.method != "POST":
        context |= {
            "form": DueForm(initial={"revision": table.revision}), "rows": _shown(table.rows),
            "severities": READING_ORDER,
        }  # fmt: skip
        return render(request, "lifecycle/policies/due_dates.html", context)
    refuse_if(why_not_save(user))
    form, rows = DueForm(request.POST), _posted(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            listed = [_value(row) for row in rows]
            if "try" not in request.POST:
                save_due_dates(
                    listed, actor=user, seen=form.cleaned_data["revision"], note=form.cleaned_data["note"]
                )  # fmt: skip
                messages.success(request, "Due dates saved. Lists and alerts follow within minutes.")
                return redirect("lifecycle:due-dates")
            draft, now = rows_of(listed), clock.now()
            context["what_if"] = {"now": count_overdue(table.rows, now), "then": count_overdue(draft, now)}
    blank = dict.fromkeys(_NAMES, "")
    context |= {"form": form, "rows": [*rows, *[blank] * _BLANK], "severities": READING_ORDER}
    return render(request, "lifecycle/policies/due_dates.html", context, status=422 if form.errors else 200)


def _shown(rows: Sequence[DueRow]) -> list[dict[str, Any]]:
    listed = [
        row.as_json() | {"exploited": "yes" if row.exploited else "", "min_epss_percent": row.min_epss_percent or ""}
        for row in rows
    ]
    return [*listed, *[dict.fromkeys(_NAMES, "")] * _BLANK]


def _posted(data: QueryDict) -> list[dict[str, Any]]:
    """Return the rows of the editor as text. A row without days is removed."""
    columns = [data.getlist(name)[: ROWS_MAX + _BLANK] for name in _NAMES]
    rows = [dict(zip(_NAMES, values, strict=True)) for values in zip(*columns, strict=False)]
    return [row for row in rows if row["days"].strip()]


def _value(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it. What is no number stays text, which the check of rows refuses with its place."""
    percent = row["min_epss_percent"].strip()
    return row | {
        "exploited": row["exploited"] == "yes",
        "min_epss_percent": _number(percent) if percent else None,
        "days": _number(row["days"].strip()),
    }


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
