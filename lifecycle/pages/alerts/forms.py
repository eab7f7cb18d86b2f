"""The form of an alert's page."""

from __future__ import annotations

from typing import Final

from django import forms

from lifecycle.alerts.services import REASON_MAX, SNOOZE_DAYS_MAX

_CONTROL: Final = {"class": "form-control"}


class ActForm(forms.Form):
    """What is done about an alert, and until when it is put off."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        required=False,
        help_text="Required to resolve.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 3}),
    )
    days = forms.IntegerField(
        label="Snooze for days",
        min_value=1,
        max_value=SNOOZE_DAYS_MAX,
        initial=7,
        required=False,
        widget=forms.NumberInput(attrs=_CONTROL),
    )
