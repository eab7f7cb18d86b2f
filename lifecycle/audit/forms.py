"""Filter form of the audit log, used by the page and the API."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from lifecycle.audit.models import AuditEvent
from lifecycle.audit.types import EventFilter

_INPUT: Final = {"class": "form-control"}
_DATE: Final = {"class": "form-control", "type": "date"}


class FilterForm(forms.Form):
    """Filter fields; all are optional."""

    action = forms.RegexField(
        r"^[a-z0-9._-]*\Z",
        max_length=80,
        required=False,
        error_messages={"invalid": "Enter an action or its beginning, for example promotion.approved or grant."},
        widget=forms.TextInput(attrs={**_INPUT, "placeholder": "promotion.approved"}),
    )
    actor = forms.CharField(
        label="User", max_length=150, required=False, widget=forms.TextInput(attrs={**_INPUT, "placeholder": "anyone"})
    )
    team = forms.SlugField(max_length=60, required=False, widget=forms.Select(attrs={"class": "form-select"}))
    subject = forms.CharField(
        max_length=300,
        required=False,
        widget=forms.TextInput(attrs={**_INPUT, "placeholder": "shop/api, production, PR-13, sha256:…"}),
    )
    outcome = forms.ChoiceField(
        choices=[("", "any"), *AuditEvent.Outcome.choices],
        required=False,
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    since = forms.DateField(label="From", required=False, widget=forms.DateInput(attrs=_DATE))
    until = forms.DateField(label="To", required=False, widget=forms.DateInput(attrs=_DATE))

    def clean(self) -> dict[str, Any]:
        """Refuse dates in the wrong order, which would match nothing without a word."""
        cleaned = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if since is not None and until is not None and until < since:
            self.add_error("until", "This day is before the first day. Swap the two dates.")
        return cleaned

    def event_filter(self) -> EventFilter:
        """Return the filter of a valid form."""
        return EventFilter(**self.cleaned_data)
