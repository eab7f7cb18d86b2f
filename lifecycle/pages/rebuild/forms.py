"""What people type about rebuilds: a base to plan on, a recipe. A refused form keeps its text and says why."""

from __future__ import annotations

from typing import Any, Final, cast

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet

from lifecycle.core.errors import Malformed
from lifecycle.core.types import Digest, parse_tag
from lifecycle.rebuild.containerfile import base_references
from lifecycle.rebuild.contexts import CONTEXT_MAX
from lifecycle.registry.models import Repository, RepositoryImage, Tag

CONTAINERFILE_MAX: Final = 256 * 1024  # characters
FILES_MAX: Final = 100  # of one upload; Django itself stops reading there


class PlanForm(forms.Form):
    """A base, and the image of it that everything above shall stand on."""

    base = forms.ModelChoiceField(
        Repository.objects.none(),
        label="Base repository",
        empty_label=None,
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    reference = forms.CharField(
        label="Tag or digest",
        max_length=200,
        help_text="What the images will stand on. A tag is resolved to its digest now.",
        widget=forms.TextInput(attrs={"class": "form-control mono", "autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, bases: QuerySet[Repository], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast("forms.ModelChoiceField[Repository]", self.fields["base"]).queryset = bases

    def clean(self) -> dict[str, Any]:
        """Refuse what names no image of the base, so that the text stays in the form."""
        given = super().clean() or {}
        base, reference = given.get("base"), given.get("reference", "")
        if base is None or not reference:
            return given
        try:
            if ":" in reference:
                held = RepositoryImage.objects.filter(repository=base, removed_at=None)
                is_there = held.filter(image__digest=Digest.parse(reference).text).exists()
            else:
                is_there = Tag.objects.filter(repository=base, name=parse_tag(reference), image__isnull=False).exists()
        except Malformed as error:
            raise forms.ValidationError({"reference": error.message}) from None
        if not is_there:
            raise forms.ValidationError({"reference": f"{base.name} has no image {reference[:80]}."})
        return given

    @property
    def reference_text(self) -> str:
        """The base as `planning.plan_wave` takes it."""
        name, reference = self.cleaned_data["base"].name, self.cleaned_data["reference"]
        return f"{name}@{reference}" if ":" in reference else f"{name}:{reference}"


class _FilesInput(forms.ClearableFileInput):
    allow_multiple_selected = True


class _FilesField(forms.FileField):
    """Several files of one input, as {name: bytes}."""

    widget = _FilesInput

    def clean(self, data: Any, initial: Any = None) -> Any:
        given: list[UploadedFile[bytes]] = [file for file in data or () if file]
        if sum(file.size or 0 for file in given) > CONTEXT_MAX:
            raise forms.ValidationError(f"All files together may have {CONTEXT_MAX // 1024 // 1024} MiB.")
        files: dict[str, bytes] = {}
        for file in given:
            name = file.name or ""
            if name in files:
                raise forms.ValidationError(f"Two files are called {name}.")
            if not name.isprintable():
                raise forms.ValidationError("A file name has an unprintable character.")
            files[name] = file.read()
        return files


class RecipeForm(forms.Form):
    """One revision of how an image is built."""

    containerfile = forms.CharField(
        label="Containerfile",
        max_length=CONTAINERFILE_MAX,
        strip=False,
        help_text="Each FROM is replaced by a digest when it is built.",
        widget=forms.Textarea(
            attrs={"class": "form-control mono", "rows": 18, "spellcheck": "false", "autocapitalize": "off"}
        ),
    )
    tag = forms.CharField(
        label="Tag that a rebuild moves",
        max_length=128,
        initial="latest",
        widget=forms.TextInput(attrs={"class": "form-control mono", "spellcheck": "false"}),
    )
    build_args = forms.CharField(
        label="Build arguments",
        required=False,
        max_length=20_000,
        help_text="One NAME=value a line. They end up in the image's history: no secrets.",
        widget=forms.Textarea(attrs={"class": "form-control mono", "rows": 3, "spellcheck": "false"}),
    )
    keep_context = forms.BooleanField(
        label="Keep the files of the revision in force",
        required=False,
        initial=True,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    context = _FilesField(
        label="Files for COPY and ADD",
        required=False,
        help_text=f"They lie beside the Containerfile under their own names; at most {FILES_MAX} files and "
        f"{CONTEXT_MAX // 1024 // 1024} MiB together.",
        widget=_FilesInput(attrs={"class": "form-control"}),
    )

    def clean_containerfile(self) -> str:
        """Line ends as builders know them; browsers send CRLF (HTML, form submission)."""
        return str(self.cleaned_data["containerfile"]).replace("\r\n", "\n")

    def clean_tag(self) -> str:
        try:
            return parse_tag(self.cleaned_data["tag"])
        except Malformed as error:
            raise forms.ValidationError(error.message) from None

    def clean_build_args(self) -> dict[str, str]:
        arguments: dict[str, str] = {}
        for number, line in enumerate(self.cleaned_data["build_args"].splitlines(), start=1):
            name, separator, value = line.strip().partition("=")
            if not line.strip():
                continue
            if not separator or not name.isidentifier() or not name.isascii():
                raise forms.ValidationError(f"Line {number}: expected NAME=value.")
            arguments[name] = value
        return arguments

    def clean(self) -> dict[str, Any]:
        """Refuse a recipe whose bases cannot be read, so that the text stays in the form."""
        given = super().clean() or {}
        if given.get("containerfile"):
            try:
                base_references(given["containerfile"], given.get("build_args") or {})
            except Malformed as error:
                raise forms.ValidationError({"containerfile": error.message}) from None
        return given
