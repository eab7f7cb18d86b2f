"""Form of the access check, used by the page and the API."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from accounts.verbs import Verb
from lifecycle.environments.models import Environment

_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_SELECT: Final = {"class": "form-select"}


class WhyForm(forms.Form):
    """Which user, verb, repository and environment to check."""

    who = forms.CharField(label="User name", max_length=150, widget=forms.TextInput(attrs=_PLAIN))
    verb = forms.ChoiceField(
        choices=[(verb.value, verb.value) for verb in Verb], widget=forms.Select(attrs={"class": "form-select mono"})
    )
    repository = forms.CharField(
        max_length=255,
        required=False,
        help_text="Leave empty for the whole team.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    environment = forms.ChoiceField(required=False, widget=forms.Select(attrs=_SELECT))

    def __init__(self, environments: list[Environment], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["environment"].choices = [  # type: ignore[attr-defined]  # typed as Field, is a ChoiceField
            ("", "No environment"),
            *((environment.slug, environment.slug) for environment in environments),
        ]
