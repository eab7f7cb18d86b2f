"""Forms of the quarantine pages."""

from __future__ import annotations

from typing import Final

from django import forms

from lifecycle.quarantine.services import INCIDENT_MAX, REASON_MAX

_CONTROL: Final = {"class": "form-control"}


class QuarantineForm(forms.Form):
    """A digest to quarantine."""

    digest = forms.CharField(max_length=135, widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false"}))
    reason = forms.CharField(
        max_length=REASON_MAX,
        help_text="Everybody who is stopped reads it, also in other teams.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 3}),
    )
    incident = forms.CharField(
        max_length=INCIDENT_MAX,
        required=False,
        help_text="A ticket or a link.",
        widget=forms.TextInput(attrs=_CONTROL),
    )
    descendants = forms.BooleanField(
        required=False,
        initial=True,
        label="Also images built on it, now and later",
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    withdraw = forms.BooleanField(
        required=False,
        label="Stop pulls too: withdraw it from the registry",
        help_text="It leaves all repositories of the managed registry, in all teams and environments.",
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )


class ActForm(forms.Form):
    """A comment on a request for release, a release or a refusal."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        required=False,
        help_text="Required to ask for a release or to refuse it.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 3}),
    )


class ExemptionForm(forms.Form):
    """An image that the quarantine covers and that is harmless."""

    digest = forms.CharField(max_length=135, widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false"}))
    reason = forms.CharField(
        label="Why it is harmless", max_length=REASON_MAX, widget=forms.Textarea(attrs=_CONTROL | {"rows": 2})
    )
