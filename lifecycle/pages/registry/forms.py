"""Forms of the repository's settings."""

from __future__ import annotations

from django import forms

from lifecycle.ingest.managing import DESCRIPTION_MAX
from lifecycle.registry.models import Metadata


class DescriptionForm(forms.Form):
    description = forms.CharField(
        max_length=DESCRIPTION_MAX,
        required=False,
        help_text=f"What the images are for. At most {DESCRIPTION_MAX} characters.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )


class VisibilityForm(forms.Form):
    visibility = forms.ChoiceField(
        label="Who can see and pull the images",
        choices=(
            ("private", "Private: only users with a role"),
            ("internal", "Internal: everybody with an account here"),
            ("public", "Public: everybody, also without an account"),
        ),
        widget=forms.Select(attrs={"class": "form-select"}),
    )


class DeletionForm(forms.Form):
    name = forms.CharField(
        label="Name of the repository",
        max_length=255,
        help_text="Enter it again to confirm.",
        widget=forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false"}),
    )


class MetadataForm(forms.Form):
    """One key, its type and its value. The service checks the value against the type."""

    key = forms.CharField(
        max_length=100,
        help_text="For example owner or review/date.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )
    kind = forms.ChoiceField(
        label="Type", choices=Metadata.Kind.choices, widget=forms.Select(attrs={"class": "form-select"})
    )
    value = forms.CharField(max_length=1000, widget=forms.TextInput(attrs={"class": "form-control"}))


class ProtectionForm(forms.Form):
    patterns = forms.CharField(
        label="Protected tags",
        max_length=8000,
        required=False,
        help_text="One pattern per line. * matches any characters. Only users with image.amend can move these tags.",
        widget=forms.Textarea(attrs={"class": "form-control mono", "rows": 5, "spellcheck": "false"}),
    )


class SbomForm(forms.Form):
    file = forms.FileField(
        label="Send an SBOM",
        help_text="CycloneDX (JSON, XML), SPDX 2.2, 2.3 or 3.0 (JSON). It decides instead of our scan, which is kept.",
        widget=forms.FileInput(attrs={"class": "form-control"}),
    )
