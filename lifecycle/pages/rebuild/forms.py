"""Forms for rebuilds: plan a wave, store a recipe. An invalid form keeps its text and shows the errors."""

from __future__ import annotations

from typing import Any, Final, cast

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.urls import reverse_lazy

from lifecycle.core.errors import Malformed
from lifecycle.core.types import Digest, parse_tag
from lifecycle.rebuild.containerfile import base_references
from lifecycle.rebuild.contexts import CONTEXT_MAX
from lifecycle.registry.models import Repository, RepositoryImage, Tag

CONTAINERFILE_MAX: Final = 256 * 1024  # characters
FILES_MAX: Final = 100  # of one upload; Django accepts no more (DATA_UPLOAD_MAX_NUMBER_FILES)


class PlanForm(forms.Form):
    """A base repository, and the image in it to rebuild derived images on."""

    base = forms.ModelChoiceField(
        Repository.objects.none(),
        label="Base repository",
        empty_label=None,
        widget=forms.Select(
            attrs={
                "class": "form-select",
                # A tag belongs to its base: with another base, the form gets the latest tag of that one.
                "hx-get": reverse_lazy("lifecycle:wave-plan"),
                "hx-trigger": "change",
                "hx-target": "#reference",
                "hx-select": "#reference",
                "hx-swap": "outerHTML",
            }
        ),
    )
    reference = forms.CharField(
        label="Tag or digest",
        max_length=200,
        help_text="The new base. A tag is resolved to a digest now.",
        widget=forms.TextInput(attrs={"class": "form-control mono", "autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, bases: QuerySet[Repository], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast("forms.ModelChoiceField[Repository]", self.fields["base"]).queryset = bases

    def clean(self) -> dict[str, Any]:
        """Reject a reference without an image in the base repository, so that the text stays in the form."""
        given = super().clean() or {}
        base, reference = given.get("base"), given.get("reference", "")
        if base is None or not reference:
            return given
        try:
            if ":" in reference:
                images = RepositoryImage.objects.filter(repository=base, removed_at=None)
                exists = images.filter(image__digest=Digest.parse(reference).text).exists()
            else:
                exists = Tag.objects.filter(repository=base, name=parse_tag(reference), image__isnull=False).exists()
        except Malformed as error:
            raise forms.ValidationError({"reference": error.message}) from None
        if not exists:
            raise forms.ValidationError({"reference": f"{base.name} has no image {reference[:80]}. Check the name."})
        return given

    @property
    def reference_text(self) -> str:
        """The new base in the format of `planning.plan_wave`: `name:tag` or `name@digest`."""
        name, reference = self.cleaned_data["base"].name, self.cleaned_data["reference"]
        return f"{name}@{reference}" if ":" in reference else f"{name}:{reference}"


class _FilesInput(forms.ClearableFileInput):
    allow_multiple_selected = True


class _FilesField(forms.FileField):
    """Several files of one input, cleaned to {name: bytes}."""

    widget = _FilesInput

    def clean(self, data: Any, initial: Any = None) -> Any:
        given: list[UploadedFile[bytes]] = [file for file in data or () if file]
        if sum(file.size or 0 for file in given) > CONTEXT_MAX:
            raise forms.ValidationError(f"The files are too large. The limit is {CONTEXT_MAX // 1024 // 1024} MiB.")
        files: dict[str, bytes] = {}
        for file in given:
            name = file.name or ""
            if name in files:
                raise forms.ValidationError(f"Two files have the name {name}. Rename one of them.")
            if not name.isprintable():
                raise forms.ValidationError("A file name contains an unprintable character. Rename the file.")
            files[name] = file.read()
        return files


class RecipeForm(forms.Form):
    """One revision of a recipe."""

    containerfile = forms.CharField(
        label="Containerfile",
        max_length=CONTAINERFILE_MAX,
        strip=False,
        help_text="Each FROM is pinned to a digest at build time.",
        widget=forms.Textarea(
            attrs={"class": "form-control mono", "rows": 18, "spellcheck": "false", "autocapitalize": "off"}
        ),
    )
    tag = forms.CharField(
        label="Tag to update",
        max_length=128,
        initial="latest",
        widget=forms.TextInput(attrs={"class": "form-control mono", "spellcheck": "false"}),
    )
    build_args = forms.CharField(
        label="Build arguments",
        required=False,
        max_length=20_000,
        help_text="One NAME=value per line. Build arguments are visible in the image history. Do not add secrets.",
        widget=forms.Textarea(attrs={"class": "form-control mono", "rows": 3, "spellcheck": "false"}),
    )
    keep_context = forms.BooleanField(
        label="Keep the files of the current revision",
        required=False,
        initial=True,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    context = _FilesField(
        label="Files for COPY and ADD",
        required=False,
        help_text=f"Placed next to the Containerfile. At most {FILES_MAX} files and "
        f"{CONTEXT_MAX // 1024 // 1024} MiB in total.",
        widget=_FilesInput(attrs={"class": "form-control"}),
    )

    def clean_containerfile(self) -> str:
        """Convert CRLF line ends, which browsers send (HTML, form submission), to LF."""
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
                raise forms.ValidationError(f"Line {number}: enter NAME=value.")
            arguments[name] = value
        return arguments

    def clean(self) -> dict[str, Any]:
        """Reject a Containerfile whose base images cannot be parsed, so that the text stays in the form."""
        given = super().clean() or {}
        if given.get("containerfile"):
            try:
                base_references(given["containerfile"], given.get("build_args") or {})
            except Malformed as error:
                raise forms.ValidationError({"containerfile": error.message}) from None
        return given
