"""Forms of the retention pages."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from lifecycle.retention.constants import NUMBER_MAX

_CONTROL: Final = {"class": "form-control"}
_NUMBER: Final = forms.NumberInput


class RulesForm(forms.Form):
    """The rules of a team or a repository; an empty field is not set."""

    keep_last = forms.IntegerField(
        required=False, min_value=1, max_value=NUMBER_MAX, label="Keep the last images with a tag",
        help_text="Number of images in each repository.", widget=_NUMBER(attrs=_CONTROL),
    )  # fmt: skip
    keep_days = forms.IntegerField(
        required=False, min_value=0, max_value=NUMBER_MAX, label="Keep images for days",
        help_text="After the last push or tag. Without this and the number above, images with a tag stay.",
        widget=_NUMBER(attrs=_CONTROL),
    )  # fmt: skip
    tags = forms.CharField(
        required=False, max_length=4000, label="Keep images with these tags",
        help_text="Patterns with spaces between them; * stands for any characters.",
        widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false"}),
    )  # fmt: skip
    untagged_days = forms.IntegerField(
        required=False, min_value=0, max_value=NUMBER_MAX, label="Delete images without a tag after days",
        help_text="Empty: they stay.", widget=_NUMBER(attrs=_CONTROL),
    )  # fmt: skip
    revision = forms.IntegerField(min_value=0, widget=forms.HiddenInput)

    def rules(self) -> dict[str, Any]:
        """Return the values as `save_rules` takes them."""
        return {**self.cleaned_data, "tags": self.cleaned_data["tags"].replace(",", " ").split()}


class PlanForm(forms.Form):
    """A new plan of a team or a repository."""

    accept_unknown_runtime = forms.BooleanField(
        required=False,
        label="Delete promoted copies although a cluster has never reported what it runs",
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
