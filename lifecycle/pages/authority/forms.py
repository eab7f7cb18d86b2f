"""What people type about teams, roles, robots, accounts and tokens."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any, Final

from django import forms
from django.utils import timezone

from accounts.models import Role, Team, User
from accounts.tokens import DEFAULT_DAYS
from accounts.verbs import Verb
from lifecycle.core import clock
from lifecycle.environments.models import Environment

_INPUT: Final = {"class": "form-control"}
_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_SELECT: Final = {"class": "form-select"}


class TeamForm(forms.Form):
    """A new team."""

    slug = forms.CharField(
        label="Short name",
        max_length=60,
        help_text="The first part of its repositories' names: lower-case letters, digits, single hyphens. It stays.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    name = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs=_INPUT))


class GrantForm(forms.Form):
    """A role over some repositories of a team, maybe in one environment, maybe for a time."""

    role = forms.ChoiceField(widget=forms.Select(attrs=_SELECT))
    repository_pattern = forms.CharField(
        label="Repositories",
        max_length=255,
        initial="*",
        help_text="shop/api, shop/*, or * for all of the team's. A star stands for any run of characters.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    environment = forms.ChoiceField(required=False, widget=forms.Select(attrs=_SELECT))
    until = forms.DateField(
        label="Until",
        required=False,
        help_text="The last day it counts, in UTC. Empty: until it is revoked.",
        widget=forms.DateInput(attrs={**_INPUT, "type": "date"}),
    )

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        roles = Role.objects.order_by("-is_builtin", "slug")
        places = Environment.objects.filter(team=team).order_by("position")
        self.fields["role"].choices = [(role.slug, f"{role.slug}") for role in roles]  # type: ignore[attr-defined]  # fields are typed as Field, this is a ChoiceField
        self.fields["environment"].choices = [  # type: ignore[attr-defined]  # as above
            ("", "All, and what lies outside of them"),
            *((place.slug, place.slug) for place in places),
        ]

    def clean_until(self) -> datetime | None:
        """Return the end of the last day, in UTC."""
        day = self.cleaned_data["until"]
        if day is None:
            return None
        end = timezone.make_aware(datetime.combine(day, time(23, 59, 59)), timezone.get_default_timezone())
        if end <= clock.now():
            raise forms.ValidationError("The last day lies in the past.")
        return end

    def scope(self) -> dict[str, Any]:
        """Return the arguments of the service."""
        return {
            "role": self.cleaned_data["role"],
            "repository_pattern": self.cleaned_data["repository_pattern"],
            "environment": self.cleaned_data["environment"],
            "expires_at": self.cleaned_data["until"],
        }


class MemberForm(GrantForm):
    """A grant for a person, by name."""

    username = forms.CharField(label="Person", max_length=150, widget=forms.TextInput(attrs=_PLAIN))
    field_order = ("username", "role", "repository_pattern", "environment", "until")

    def clean_username(self) -> str:
        """Refuse a name beside its field; the view has checked that the reader may ask."""
        name: str = self.cleaned_data["username"]
        if not User.objects.filter(username=name, is_active=True, kind=User.Kind.PERSON).exists():
            raise forms.ValidationError(f"There is no active account {name}.")
        return name


class RoleForm(forms.Form):
    """A composed role's name and verbs."""

    name = forms.CharField(max_length=120, widget=forms.TextInput(attrs=_INPUT))
    verbs = forms.MultipleChoiceField(
        choices=[(verb.value, verb.value) for verb in Verb], error_messages={"required": "Choose at least one verb."}
    )


class NewRoleForm(RoleForm):
    """A role to be made; its short name is what grants and the API call it by."""

    slug = forms.SlugField(
        label="Short name",
        max_length=60,
        help_text="Letters, digits, hyphens and underscores. It stays.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    field_order = ("slug", "name", "verbs")


class RobotForm(forms.Form):
    """A new robot."""

    name = forms.CharField(
        max_length=60,
        help_text="Lower-case letters, digits, single hyphens: ci, deploy-bot.",
        widget=forms.TextInput(attrs=_PLAIN),
    )


class TokenForm(forms.Form):
    """A new token of a person or a robot."""

    name = forms.CharField(
        max_length=120,
        help_text="What will hold it: laptop, pipeline of shop/api.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    days = forms.IntegerField(
        label="Days",
        min_value=1,
        max_value=366,
        initial=DEFAULT_DAYS,
        help_text="It ends by itself after so many days, 366 at most.",
        widget=forms.NumberInput(attrs=_INPUT),
    )


class EnvironmentForm(forms.Form):
    """A new environment at the end of the team's path."""

    slug = forms.SlugField(
        label="Short name", max_length=60, help_text="staging, production", widget=forms.TextInput(attrs=_PLAIN)
    )
    name = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs=_INPUT))
    target_prefix = forms.SlugField(
        max_length=60,
        help_text="shop/api lands in <prefix>/shop/api. Only Gravingdock pushes there.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    required_approvals = forms.IntegerField(
        label="Approvals needed", min_value=0, max_value=20, initial=1, widget=forms.NumberInput(attrs=_INPUT)
    )


class PersonForm(forms.Form):
    """A new account."""

    username = forms.CharField(
        label="User name",
        max_length=60,
        help_text="Lower-case letters and digits, single . _ - between them. It stays: the audit log names people so.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    is_admin = forms.BooleanField(
        label="Admin: makes teams, roles and accounts, and reads every audit log",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
