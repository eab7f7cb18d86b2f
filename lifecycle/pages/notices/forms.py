"""Forms of the preferences: what the reader gets, when, and what is muted."""

from __future__ import annotations

import zoneinfo
from datetime import datetime, time
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from django import forms

from lifecycle.notices.models import Mute, Preferences
from lifecycle.notices.preferences import INBOX, MAIL, Wish, wants
from lifecycle.notices.topics import all_topics

_TIME: Final = {"class": "form-control", "type": "time"}
_SELECT: Final = {"class": "form-select"}


class PreferencesForm(forms.Form):
    """What the reader gets in the list and by mail, and when mail may come."""

    inbox = forms.MultipleChoiceField(required=False)
    mail = forms.MultipleChoiceField(required=False)
    digest = forms.ChoiceField(
        label="Mail",
        choices=Preferences.Digest.choices,
        help_text="Once a day: one mail with all notices.",
        widget=forms.Select(attrs=_SELECT),
    )
    digest_at = forms.TimeField(label="Daily mail at", widget=forms.TimeInput(format="%H:%M", attrs=_TIME))
    quiet_from = forms.TimeField(
        label="No mail from", required=False, widget=forms.TimeInput(format="%H:%M", attrs=_TIME)
    )
    quiet_until = forms.TimeField(
        label="until",
        required=False,
        help_text="What happens meanwhile comes in one mail at the end.",
        widget=forms.TimeInput(format="%H:%M", attrs=_TIME),
    )
    time_zone = forms.ChoiceField(
        label="Time zone of these times",
        required=False,
        choices=[("", "As in my profile"), *((name, name) for name in sorted(zoneinfo.available_timezones()))],
        widget=forms.Select(attrs=_SELECT),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(topic.name, topic.label) for topic in all_topics()]
        for name in (INBOX, MAIL):
            cast(forms.MultipleChoiceField, self.fields[name]).choices = choices

    @classmethod
    def initial_of(cls, row: Preferences) -> dict[str, Any]:
        """Return the initial values of the form."""
        chosen = {way: [topic.name for topic in all_topics() if wants(row, topic.name, way)] for way in (INBOX, MAIL)}
        times = {name: getattr(row, name) for name in ("digest", "digest_at", "quiet_from", "quiet_until", "time_zone")}
        return chosen | times

    def wish(self) -> Wish:
        """Return what was entered, once the form is valid."""
        values = self.cleaned_data
        return Wish(
            frozenset(values[INBOX]), frozenset(values[MAIL]), values["digest"],
            cast(time, values["digest_at"]), values["quiet_from"], values["quiet_until"], values["time_zone"],
        )  # fmt: skip


# The prefix of a number, as people write it: the thread of its notices.
_THREADS: Final = {"": "promotionrequest", "PR": "promotionrequest", "WV": "waiver", "Q": "quarantine"}


class MuteForm(forms.Form):
    """What to mute, and until when in the reader's time zone."""

    scope = forms.ChoiceField(label="Mute", choices=Mute.Scope.choices, widget=forms.Select(attrs=_SELECT))
    value = forms.CharField(
        label="Which",
        required=False,
        max_length=255,
        help_text="A repository such as shop/api, PR-13, WV-2, Q-4, or a topic such as promotion.asked.",
        widget=forms.TextInput(attrs={"class": "form-control", "autocomplete": "off"}),
    )
    until = forms.DateTimeField(
        label="Until",
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d"],
        widget=forms.DateTimeInput(attrs={"class": "form-control", "type": "datetime-local"}),
    )

    def clean_value(self) -> str:
        """Return the value as it is stored: the thread for a number such as PR-13. A number alone is a promotion."""
        value: str = self.cleaned_data["value"].strip()
        kind, _, number = value.upper().rpartition("-")
        thread = _THREADS.get(kind)
        if self.cleaned_data.get("scope") == Mute.Scope.THREAD and thread and number.isascii() and number.isdigit():
            return f"{thread}-{number}"
        return value

    def until_in(self, zone: ZoneInfo) -> datetime:
        """Return the end. The browser sends the wall clock of the reader."""
        moment: datetime = self.cleaned_data["until"]
        return moment.replace(tzinfo=zone)
