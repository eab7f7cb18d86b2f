"""The forms of the sealed log: a signed export, and a new anchor."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from lifecycle.sealed_log.models import Anchor

_DATE: Final = {"class": "form-control", "type": "date"}


class ExportForm(forms.Form):
    """What to export: days, or one subject; all without both."""

    since = forms.DateField(label="From", required=False, widget=forms.DateInput(attrs=_DATE))
    until = forms.DateField(label="To", required=False, widget=forms.DateInput(attrs=_DATE))
    subject = forms.CharField(
        max_length=300,
        required=False,
        help_text="A digest, PR-13, team shop, person kim or environment shop/production",
        widget=forms.TextInput(attrs={"class": "form-control", "placeholder": "all"}),
    )

    def clean(self) -> dict[str, Any]:
        """Refuse days in the wrong order, which would match nothing without a word."""
        cleaned = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if since is not None and until is not None and until < since:
            self.add_error("until", "This day is before the first day. Swap the two dates.")
        return cleaned


class AnchorForm(forms.Form):
    """A new anchor."""

    name = forms.SlugField(max_length=60, widget=forms.TextInput(attrs={"class": "form-control"}))
    kind = forms.ChoiceField(
        choices=Anchor.Kind.choices,
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    target = forms.CharField(
        max_length=300,
        required=False,
        help_text="A folder's name below ANCHOR_FOLDER, udp://host:514 or tcp://host:601, or a mail address",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )
