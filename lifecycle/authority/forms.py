"""The question to the explainer, as the page and the API ask it."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from accounts.verbs import Verb
from lifecycle.environments.models import Environment

_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_SELECT: Final = {"class": "form-select"}


class WhyForm(forms.Form):
    """A question to the explainer."""

    who = forms.CharField(max_length=150, widget=forms.TextInput(attrs=_PLAIN))
    verb = forms.ChoiceField(
        choices=[(verb.value, verb.value) for verb in Verb], widget=forms.Select(attrs={"class": "form-select mono"})
    )
    repository = forms.CharField(
        max_length=255, required=False, help_text="Empty: the team as a whole.", widget=forms.TextInput(attrs=_PLAIN)
    )
    environment = forms.ChoiceField(required=False, widget=forms.Select(attrs=_SELECT))

    def __init__(self, places: list[Environment], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["environment"].choices = [  # type: ignore[attr-defined]  # fields are typed as Field, this is a ChoiceField
            ("", "Outside of environments"),
            *((place.slug, place.slug) for place in places),
        ]
