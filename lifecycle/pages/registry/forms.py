"""Forms of the repository's settings."""

from __future__ import annotations

from django import forms

from lifecycle.ingest.managing import DESCRIPTION_MAX


class DescriptionForm(forms.Form):
    description = forms.CharField(
        max_length=DESCRIPTION_MAX,
        required=False,
        help_text=f"What the images are for. At most {DESCRIPTION_MAX} characters.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )


class ProtectionForm(forms.Form):
    patterns = forms.CharField(
        label="Protected tags",
        max_length=8000,
        required=False,
        help_text="One pattern per line. * matches any characters. Only users with image.amend can move these tags.",
        widget=forms.Textarea(attrs={"class": "form-control mono", "rows": 5, "spellcheck": "false"}),
    )
