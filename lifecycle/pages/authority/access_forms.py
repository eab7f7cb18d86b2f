"""Forms of access requests, and of the page of effective rights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from django import forms

from lifecycle.authority.services.asking import DAYS, DAYS_MAX, TEXT_MAX
from lifecycle.declared.document import BYTES_MAX

_INPUT: Final = {"class": "form-control"}
_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_SELECT: Final = {"class": "form-select"}
_VERB_MAX: Final = 40


class AskForm(forms.Form):
    """A role in a team, on some repositories, perhaps in one environment, for some days."""

    team = forms.SlugField(max_length=60, widget=forms.TextInput(attrs=_PLAIN | {"list": "offered-team"}))
    verb = forms.CharField(max_length=_VERB_MAX, required=False, widget=forms.HiddenInput)
    role = forms.ChoiceField(
        help_text="The one that includes what you need, and the least else.", widget=forms.Select(attrs=_SELECT)
    )
    repository_pattern = forms.CharField(
        label="Repositories", max_length=255, initial="*", help_text="shop/api, shop/*, or * for all.",
        widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
    environment = forms.SlugField(
        max_length=60, required=False, help_text="Leave empty for all.", widget=forms.TextInput(attrs=_PLAIN)
    )
    days = forms.IntegerField(
        label="For how many days", min_value=1, max_value=DAYS_MAX, initial=DAYS, widget=forms.NumberInput(attrs=_INPUT)
    )
    reason = forms.CharField(
        label="What for", max_length=TEXT_MAX, help_text="The owners of the team read this.",
        widget=forms.Textarea(attrs=_INPUT | {"rows": 3}),
    )  # fmt: skip

    def __init__(self, roles: Sequence[tuple[str, str]], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].choices = list(roles)  # type: ignore[attr-defined]  # a choice field


class DecideForm(forms.Form):
    """Grant for some days, or decline with a comment."""

    days = forms.IntegerField(
        label="Days", min_value=1, max_value=DAYS_MAX, required=False, widget=forms.NumberInput(attrs=_INPUT)
    )
    comment = forms.CharField(
        max_length=TEXT_MAX,
        required=False,
        help_text="Needed to decline.",
        widget=forms.Textarea(attrs=_INPUT | {"rows": 2}),
    )


class AccessFileForm(forms.Form):
    """An access file, typed or sent, and the version that was compared."""

    text = forms.CharField(
        label="Access file", required=False, max_length=BYTES_MAX, strip=False,
        help_text="YAML or JSON, as gravingdock access export prints it.",
        widget=forms.Textarea(attrs=_PLAIN | {"class": "form-control mono", "rows": 18}),
    )  # fmt: skip
    file = forms.FileField(required=False, help_text="Instead of the text.", widget=forms.FileInput(attrs=_INPUT))
    remove = forms.BooleanField(
        label="Remove what is not in the file",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    etag = forms.CharField(max_length=80, required=False, widget=forms.HiddenInput)
    compared = forms.CharField(max_length=64, required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        """Return the fields, with the text of the file that was sent."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if (sent := cleaned.get("file")) is not None:
            try:
                cleaned["text"] = sent.read(BYTES_MAX + 1).decode()
            except UnicodeDecodeError:
                raise forms.ValidationError("The file is not text in UTF-8.") from None
        if not cleaned.get("text", "").strip():
            raise forms.ValidationError("Paste an access file, or choose one.")
        return cleaned


def mark_of(text: str) -> str:
    """Return what tells two texts apart. Browsers send other ends of lines than a file has; they make no difference."""
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()


class WhoForm(forms.Form):
    who = forms.CharField(
        label="Person or robot", max_length=150, required=False, help_text="User name; of a robot team+name.",
        widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
