"""Forms of decisions about findings and of VEX documents."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from lifecycle.vex.constants import DOCUMENT_MAX_BYTES, FEED_EVERY_HOURS_MAX, JUSTIFICATIONS
from lifecycle.vex.models import VexFeed, VexStatement

_CONTROL: Final = {"class": "form-control"}
_SELECT: Final = {"class": "form-select"}


def _offering(name: str) -> forms.TextInput:
    """Return a text field for which the page has a list of names to choose from."""
    return forms.TextInput(attrs=_CONTROL | {"list": f"offered-{name}", "autocomplete": "off"})


class VexDecisionForm(forms.Form):
    """What a vulnerability means for some images."""

    vulnerability = forms.CharField(
        max_length=200, help_text="A CVE id, or any other name of it.", widget=forms.TextInput(attrs=_CONTROL)
    )
    package = forms.CharField(
        max_length=4096,
        required=False,
        help_text="Package URL. Without a version: all versions. Empty: all packages.",
        widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false"}),
    )
    status = forms.ChoiceField(
        choices=VexStatement.Status.choices,
        help_text="Not affected, false positive and fixed close the finding. Under investigation stays open.",
        widget=forms.Select(attrs=_SELECT),
    )
    justification = forms.ChoiceField(
        choices=[("", "Only for not affected"), *JUSTIFICATIONS.items()],
        required=False,
        help_text="Why the image is not affected.",
        widget=forms.Select(attrs=_SELECT),
    )
    scope = forms.ChoiceField(
        choices=VexStatement.Scope.choices,
        initial=VexStatement.Scope.REPOSITORY,
        label="Images",
        help_text="Images built on these inherit it for the packages they have from there. All images: only admins.",
        widget=forms.Select(attrs=_SELECT),
    )
    repository = forms.CharField(max_length=255, required=False, widget=_offering("repository"))
    digest = forms.CharField(
        max_length=135,
        required=False,
        help_text="Only for this digest.",
        widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false"}),
    )
    team = forms.CharField(
        max_length=60, required=False, help_text="Only for all images of a team.", widget=_offering("team")
    )
    reason = forms.CharField(
        max_length=2000,
        help_text="What you checked. It is shown with the finding and exported.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 3}),
    )
    until = forms.DateField(
        required=False,
        label="Ends",
        help_text="The finding is open again from this day on (UTC). Empty: no end.",
        widget=forms.DateInput(attrs=_CONTROL | {"type": "date"}),
    )

    def clean(self) -> dict[str, Any]:
        """Leave out the places that the scope does not need: the form is filled from the image page."""
        found: dict[str, Any] = super().clean() or {}
        scope = found.get("scope")
        if scope != VexStatement.Scope.DIGEST:
            found["digest"] = ""
        if scope not in {VexStatement.Scope.DIGEST, VexStatement.Scope.REPOSITORY}:
            found["repository"] = ""
        if scope != VexStatement.Scope.TEAM:
            found["team"] = ""
        if found.get("status") != VexStatement.Status.NOT_AFFECTED:
            found["justification"] = ""
        return found


class VexReasonForm(forms.Form):
    """Why somebody approves, rejects, accepts or withdraws."""

    reason = forms.CharField(
        max_length=2000, required=False, label="Comment", widget=forms.Textarea(attrs=_CONTROL | {"rows": 2})
    )


class VexDocumentForm(forms.Form):
    """A VEX document as a file."""

    file = forms.FileField(
        required=False,
        label="Document",
        help_text="OpenVEX, CycloneDX or CSAF, as JSON.",
        widget=forms.ClearableFileInput(attrs=_CONTROL | {"accept": ".json,application/json"}),
    )
    text = forms.CharField(
        required=False,
        label="Or its text",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 3, "spellcheck": "false"}),
    )
    team = forms.CharField(
        max_length=60,
        required=False,
        help_text="Team whose images it is about. Empty: all images (admins).",
        widget=_offering("team"),
    )

    def clean(self) -> dict[str, Any]:
        """Add the content of the file, or the text, as `content`."""
        found: dict[str, Any] = super().clean() or {}
        file = found.get("file")
        if not file and not found.get("text"):
            raise forms.ValidationError("Choose a file, or enter the text of the document.")
        if file and file.size > DOCUMENT_MAX_BYTES:
            raise forms.ValidationError(f"The limit is {DOCUMENT_MAX_BYTES // 1024 // 1024} MiB.")
        found["content"] = file.read() if file else found["text"].encode()
        return found


class VexFeedForm(forms.Form):
    """What can be changed of a feed."""

    location = forms.CharField(
        label="Address",
        max_length=500,
        help_text="https address of a document, or of a folder with index.txt or changes.csv, which ends with /.",
        widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false", "autocomplete": "off"}),
    )
    speaks_for = forms.CharField(
        required=False,
        label="Speaks for",
        max_length=60_000,
        help_text="Beginnings of package URLs, one per line: pkg:deb/debian/ or pkg:oci/api. Empty: everything.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 2, "spellcheck": "false"}),
    )
    public_key = forms.CharField(
        required=False,
        max_length=20_000,
        help_text="PEM. Each document then needs a signature beside it (.sig), as cosign sign-blob writes it.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 2, "spellcheck": "false"}),
    )
    every_hours = forms.IntegerField(
        required=False,
        initial=24,
        min_value=1,
        max_value=FEED_EVERY_HOURS_MAX,
        label="Hours between two runs",
        help_text="Empty: only by hand.",
        widget=forms.NumberInput(attrs=_CONTROL),
    )

    @classmethod
    def of(cls, feed: VexFeed, data: Any = None) -> VexFeedForm:
        """Return the form with what is stored."""
        stored = {name: getattr(feed, name) for name in cls.base_fields}
        return cls(data, initial=stored | {"speaks_for": "\n".join(feed.speaks_for)})

    def values(self) -> dict[str, Any]:
        """Return what the services take."""
        return self.cleaned_data | {"speaks_for": self.cleaned_data["speaks_for"].split()}


class NewVexFeedForm(VexFeedForm):
    """A new feed."""

    field_order = ("name", "team", "location")

    name = forms.CharField(
        max_length=60,
        help_text="Small letters, digits and -._, such as vendor-vex.",
        widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false", "autocomplete": "off"}),
    )
    team = forms.CharField(
        max_length=60,
        required=False,
        help_text="Team whose images it is about. Empty: all images (admins).",
        widget=_offering("team"),
    )
