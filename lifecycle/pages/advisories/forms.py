"""The forms of a feed and of a private advisory."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from lifecycle.advisories.feeds import EVERY_HOURS_MAX, FEED_KINDS, MIB_MAX, MINUTES_MAX
from lifecycle.advisories.models import Feed
from lifecycle.advisories.presets import PRESETS
from lifecycle.advisories.private import DOCUMENT_MAX_BYTES, TEXT_MAX

_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


def _number(label: str, most: int, initial: int | None, help_text: str, *, required: bool = True) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, min_value=1, max_value=most, initial=initial, required=required, help_text=help_text,
        widget=forms.NumberInput(attrs={"class": "form-control"}),
    )  # fmt: skip


class FeedForm(forms.Form):
    """What an admin can change of a feed."""

    location = forms.CharField(
        label="Address or folder", max_length=500, widget=forms.TextInput(attrs=_PLAIN),
        help_text="https address of the source or of your mirror, or a folder below the setting FEEDS.",
    )  # fmt: skip
    every_hours = _number("Hours between two runs", EVERY_HOURS_MAX, 4, "Empty: only by hand.", required=False)
    stale_after_hours = _number("Alarm after hours", EVERY_HOURS_MAX, 72, "An older feed is marked as stale.")
    max_minutes = _number("Time limit in minutes", MINUTES_MAX, 60, "Of one run. The next run continues.")
    max_mib = _number("Size limit in MiB", MIB_MAX, 4096, "Of one download.")

    @classmethod
    def of(cls, feed: Feed, data: Any = None) -> FeedForm:
        """Return the form with what is stored."""
        return cls(data, initial={name: getattr(feed, name) for name in cls.base_fields})


class NewFeedForm(FeedForm):
    """A new feed: a preset, or a name, a kind and an address."""

    field_order = ("preset", "name", "kind", "location")

    preset = forms.ChoiceField(
        label="Public feed", required=False, widget=forms.Select(attrs={"class": "form-select"}),
        choices=[("", "None: enter name, kind and address"), *((key, item.label) for key, item in PRESETS.items())],
        help_text="Fills in what you leave empty.",
    )  # fmt: skip
    name = forms.CharField(max_length=60, required=False, widget=forms.TextInput(attrs=_PLAIN))
    kind = forms.ChoiceField(
        choices=[("", "As the public feed"), *FEED_KINDS], required=False,
        widget=forms.Select(attrs={"class": "form-select"}),
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["location"].required = False

    def clean(self) -> dict[str, Any]:
        """Fill in the preset, and require what is still missing."""
        values: dict[str, Any] = super().clean() or {}
        preset = PRESETS.get(values.get("preset", ""))
        if preset is not None:
            known = {"name": preset.key, "kind": preset.kind, "location": preset.location}
            values |= {field: values.get(field) or value for field, value in known.items()}
        for field in ("name", "kind", "location"):
            if not values.get(field) and field not in self.errors:
                self.add_error(field, "Enter a value, or choose a public feed.")
        return values

    def values(self) -> dict[str, Any]:
        """Return what the service takes."""
        return {name: value for name, value in self.cleaned_data.items() if name != "preset"}


class PrivateAdvisoryForm(forms.Form):
    """An OSV record, and why it is needed."""

    document = forms.CharField(
        label="OSV record", max_length=DOCUMENT_MAX_BYTES, strip=False,
        widget=forms.Textarea(attrs=_PLAIN | {"class": "form-control mono", "rows": 24}),
        help_text="JSON. A later revision has the same id. \"withdrawn\" with a time closes its findings.",
    )  # fmt: skip
    reason = forms.CharField(
        max_length=TEXT_MAX, required=False, help_text="For the person who approves it.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )  # fmt: skip


class ReviewForm(forms.Form):
    """What the second person says."""

    reason = forms.CharField(
        max_length=TEXT_MAX, required=False, help_text="Required to reject.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )  # fmt: skip
