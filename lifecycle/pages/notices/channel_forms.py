"""Forms of channels."""

from __future__ import annotations

from typing import Any, Final, cast

from django import forms

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import teams_where
from lifecycle.notices.models import Channel
from lifecycle.notices.topics import all_topics

_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_SELECT: Final = {"class": "form-select"}
_ADDRESS_HELP: Final = (
    "Webhook: https://example.com/hook. Chat: an Apprise address, such as slack://TokenA/TokenB/TokenC or"
    " mmosts://chat.example.com/token. It is stored encrypted, and not shown again."
)


def _topics() -> list[tuple[str, str]]:
    return [(topic.name, topic.label) for topic in all_topics()]


class NewChannelForm(forms.Form):
    """A new channel."""

    team = forms.ChoiceField(label="Notices of", required=False, widget=forms.Select(attrs=_SELECT))
    name = forms.CharField(max_length=60, widget=forms.TextInput(attrs=_PLAIN))
    kind = forms.ChoiceField(choices=Channel.Kind.choices, widget=forms.Select(attrs=_SELECT))
    address = forms.CharField(max_length=1000, help_text=_ADDRESS_HELP, widget=forms.TextInput(attrs=_PLAIN))
    topics = forms.MultipleChoiceField(choices=_topics, widget=forms.CheckboxSelectMultiple)

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        site = [("", "All teams")] if user.is_superuser else []
        teams = [(team.slug, str(team)) for team in teams_where(user, Verb.TEAM_MANAGE)]
        cast(forms.ChoiceField, self.fields["team"]).choices = site + teams


class ChannelForm(forms.Form):
    """A change of a channel."""

    name = forms.CharField(max_length=60, widget=forms.TextInput(attrs=_PLAIN))
    is_enabled = forms.BooleanField(required=False, label="On", widget=forms.CheckboxInput)
    topics = forms.MultipleChoiceField(choices=_topics, widget=forms.CheckboxSelectMultiple)
    address = forms.CharField(
        label="New address",
        required=False,
        max_length=1000,
        help_text="Leave empty to keep the present one.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
