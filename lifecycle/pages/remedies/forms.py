"""The forms of a fix's page: who works on it, until when it is put off, and a comment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django import forms

from lifecycle.remedies.teamwork import REASON_MAX, SNOOZE_DAYS_MAX, TEXT_MAX

_CONTROL: Final = {"class": "form-control"}
_SELECT: Final = {"class": "form-select"}


class _TeamForm(forms.Form):
    """A form about the part of a remedy that concerns one team. With one team there is nothing to choose."""

    team = forms.ChoiceField(label="For the images of team", widget=forms.Select(attrs=_SELECT))

    def __init__(self, *args: Any, teams: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        slugs = list(teams)
        self.fields["team"] = forms.ChoiceField(
            label="For the images of team",
            choices=[(slug, slug) for slug in slugs],
            widget=forms.HiddenInput() if len(slugs) == 1 else forms.Select(attrs=_SELECT),
            initial=slugs[0] if slugs else None,
        )


class AssignForm(_TeamForm):
    """Who works on a remedy. Both fields empty: nobody."""

    person = forms.CharField(
        max_length=150,
        required=False,
        help_text="User name. Leave both fields empty to assign it to nobody.",
        widget=forms.TextInput(attrs=_CONTROL | {"autocomplete": "off"}),
    )
    to_team = forms.CharField(
        label="Or a team",
        max_length=64,
        required=False,
        widget=forms.TextInput(attrs=_CONTROL | {"autocomplete": "off"}),
    )


class SnoozeForm(_TeamForm):
    """Until when a remedy is put off."""

    days = forms.IntegerField(
        label="For days",
        min_value=1,
        max_value=SNOOZE_DAYS_MAX,
        initial=14,
        required=False,
        widget=forms.NumberInput(attrs=_CONTROL),
    )
    until_fix = forms.BooleanField(
        label="Until a fix ships",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    reason = forms.CharField(max_length=REASON_MAX, required=False, widget=forms.Textarea(attrs=_CONTROL | {"rows": 2}))


class CommentForm(_TeamForm):
    """What somebody writes about a remedy."""

    text = forms.CharField(label="Comment", max_length=TEXT_MAX, widget=forms.Textarea(attrs=_CONTROL | {"rows": 3}))
