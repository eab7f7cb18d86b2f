"""Forms of the pages for teams, grants, roles, robots, tokens, environments and accounts."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Sequence
from datetime import datetime, time
from typing import Any, Final

from django import forms
from django.contrib.auth.forms import SetPasswordForm
from django.db.models import Q
from django.utils import timezone

from accounts.models import Group, Robot, Role, Team, User
from accounts.queries import roles_for_people, weakest_first
from accounts.tokens import DEFAULT_DAYS
from accounts.verbs import Verb
from lifecycle.authority.queries import live_tokens
from lifecycle.authority.services.robots import OVERLAP_HOURS
from lifecycle.core import clock
from lifecycle.environments.models import Environment

_INPUT: Final = {"class": "form-control"}
_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_SELECT: Final = {"class": "form-select"}
_REPLACEABLE_MAX: Final = 100  # tokens of a robot to choose from


class TeamForm(forms.Form):
    """A new team."""

    slug = forms.CharField(
        label="Short name",
        max_length=60,
        help_text="First part of the repository names. Lower-case letters, digits and single hyphens."
        " It cannot be changed later.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    name = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs=_INPUT))


class TeamNameForm(forms.Form):
    """The display name of a team."""

    name = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs=_INPUT))


class MoveForm(forms.Form):
    """Another team for repositories of a team."""

    to = forms.ChoiceField(label="To team", widget=forms.Select(attrs=_SELECT))
    names = forms.MultipleChoiceField(
        label="Repositories",
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one repository."},
    )

    def __init__(self, teams: Sequence[str], names: Sequence[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["to"].choices = [(slug, slug) for slug in teams]  # type: ignore[attr-defined]  # a choice field
        self.fields["names"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]  # likewise


class GrantForm(forms.Form):
    """A role on some repositories of a team, optionally in one environment and with an expiry."""

    role = forms.ChoiceField(widget=forms.Select(attrs=_SELECT))
    repository_pattern = forms.CharField(
        label="Repositories",
        max_length=255,
        initial="*",
        help_text="shop/api, shop/*, or * for all repositories of the team. * matches any characters.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    environment = forms.ChoiceField(required=False, widget=forms.Select(attrs=_SELECT))
    until = forms.DateField(
        label="Expires",
        required=False,
        help_text="Last valid day (UTC). Leave empty for no expiry.",
        widget=forms.DateInput(attrs={**_INPUT, "type": "date"}),
    )

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        roles = weakest_first(self.roles())
        environments = Environment.objects.filter(team=team).order_by("position")
        self.fields["role"].choices = [(role.slug, f"{role.slug}") for role in roles]  # type: ignore[attr-defined]  # typed as Field, is a ChoiceField
        self.fields["environment"].choices = [  # type: ignore[attr-defined]  # typed as Field, is a ChoiceField
            ("", "All environments and repositories"),
            *((environment.slug, environment.slug) for environment in environments),
        ]

    def roles(self) -> Iterable[Role]:
        """Return the roles to choose from: no person and no group gets one of machines."""
        return roles_for_people()

    def clean_until(self) -> datetime | None:
        """Return the end of the last valid day in UTC, or None for no expiry."""
        day = self.cleaned_data["until"]
        if day is None:
            return None
        end = timezone.make_aware(datetime.combine(day, time(23, 59, 59)), timezone.get_default_timezone())
        if end <= clock.now():
            raise forms.ValidationError("The date is in the past. Choose a later date.")
        return end

    def scope(self) -> dict[str, Any]:
        """Return the scope of the grant as keyword arguments for the services."""
        return {
            "role": self.cleaned_data["role"],
            "repository_pattern": self.cleaned_data["repository_pattern"],
            "environment": self.cleaned_data["environment"],
            "expires_at": self.cleaned_data["until"],
        }


class RobotGrantForm(GrantForm):
    """A grant for a robot."""

    def roles(self) -> Iterable[Role]:
        return Role.objects.all()


class MemberForm(GrantForm):
    """A grant for a person, chosen by user name."""

    username = forms.CharField(label="User name", max_length=150, widget=forms.TextInput(attrs=_PLAIN))
    field_order = ("username", "role", "repository_pattern", "environment", "until")

    def clean_username(self) -> str:
        """Return the user name; raises ValidationError for an unknown one.

        The error shows which accounts exist, so the view checks the permission first.
        """
        name: str = self.cleaned_data["username"]
        if not User.objects.filter(username=name, is_active=True, kind=User.Kind.PERSON).exists():
            raise forms.ValidationError(f"No active account {name} found. Check the user name.")
        return name


class GroupGrantForm(GrantForm):
    """A grant for a group of the installation or of the team."""

    prefix = "of-group"
    group = forms.ChoiceField(widget=forms.Select(attrs=_SELECT))
    field_order = ("group", "role", "repository_pattern", "environment", "until")

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(team, *args, **kwargs)
        rows = Group.objects.filter(Q(team=team) | Q(team=None)).select_related("team").order_by("team", "slug")
        self.fields["group"].choices = [(str(group), str(group)) for group in rows]  # type: ignore[attr-defined]  # typed as Field, is a ChoiceField


class GroupForm(forms.Form):
    """A new group, of a team that the user manages, or of the installation for an admin."""

    team = forms.ChoiceField(label="Belongs to", required=False, widget=forms.Select(attrs=_SELECT))
    slug = forms.CharField(
        label="Short name",
        max_length=60,
        help_text="Lower-case letters, digits and single hyphens. It cannot be changed later.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    name = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs=_INPUT))
    source = forms.ChoiceField(
        label="Members",
        choices=((Group.Source.MANUAL, "Added here"), (Group.Source.SSO, "From sign-in, by rules")),
        widget=forms.Select(attrs=_SELECT),
    )

    def __init__(self, teams: Sequence[str], *args: Any, is_admin: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        wide = [("", "The whole installation")] if is_admin else []
        self.fields["team"].choices = [*wide, *((slug, f"Team {slug}") for slug in teams)]  # type: ignore[attr-defined]  # a choice field
        self.fields["team"].required = not is_admin
        if not is_admin:
            del self.fields["source"]


class GroupMemberForm(forms.Form):
    """A new member of a group."""

    kind = forms.ChoiceField(
        label="Add a", choices=(("person", "Person"), ("group", "Group")), widget=forms.Select(attrs=_SELECT)
    )
    name = forms.CharField(
        max_length=150,
        help_text="User name, or name of a group: devs, or shop/devs.",
        widget=forms.TextInput(attrs=_PLAIN),
    )


class RoleForm(forms.Form):
    """Name and verbs of a custom role."""

    name = forms.CharField(max_length=120, widget=forms.TextInput(attrs=_INPUT))
    verbs = forms.MultipleChoiceField(
        choices=[(verb.value, verb.value) for verb in Verb], error_messages={"required": "Choose at least one verb."}
    )


class NewRoleForm(RoleForm):
    """A new custom role. Grants and the API refer to it by its short name."""

    slug = forms.SlugField(
        label="Short name",
        max_length=60,
        help_text="Letters, digits, hyphens and underscores. It cannot be changed later.",
        error_messages={"invalid": "Use only letters, digits, hyphens and underscores."},
        widget=forms.TextInput(attrs=_PLAIN),
    )
    field_order = ("slug", "name", "verbs")


class TotpForm(forms.Form):
    """The first code of a new authenticator app, with the secret that the page shows."""

    secret = forms.RegexField(r"^[A-Z2-7]{32}\Z", widget=forms.HiddenInput)
    code = forms.CharField(
        max_length=20,
        help_text="The six digits that the app shows now.",
        widget=forms.TextInput(attrs={**_PLAIN, "autocomplete": "one-time-code", "inputmode": "numeric"}),
    )


class NewPasskeyForm(forms.Form):
    """A name for a new passkey, and what the browser made."""

    name = forms.CharField(
        max_length=60,
        help_text="What you will recognise it by, for example the device.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    credential = forms.JSONField(
        widget=forms.HiddenInput,
        error_messages={
            "required": "The browser has not made a passkey. Click the button again, and follow the browser."
        },
    )


class SecurityForm(forms.Form):
    """What sign-ins and approvals need."""

    second_factor_for_admins = forms.BooleanField(required=False, label="Admins need a second factor")
    second_factor_for_roles = forms.MultipleChoiceField(
        required=False, label="Roles that need a second factor", widget=forms.CheckboxSelectMultiple
    )
    step_up_is_on = forms.BooleanField(
        required=False, label="Approving into production needs a second factor within the last 15 minutes"
    )
    revision = forms.IntegerField(widget=forms.HiddenInput, min_value=0)

    def __init__(self, roles: Sequence[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(slug, slug) for slug in roles]
        self.fields["second_factor_for_roles"].choices = choices  # type: ignore[attr-defined]  # a choice field
        for name in ("second_factor_for_admins", "step_up_is_on"):
            self.fields[name].widget.attrs["class"] = "form-check-input"


class RobotForm(forms.Form):
    """A new robot."""

    name = forms.CharField(
        max_length=60,
        help_text="Lower-case letters, digits and single hyphens, for example ci or deploy-bot.",
        widget=forms.TextInput(attrs=_PLAIN),
    )


class TokenForm(forms.Form):
    """A new token of a person or a robot."""

    name = forms.CharField(
        max_length=120,
        help_text="Where you use it, for example laptop or shop/api pipeline.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    days = forms.IntegerField(
        label="Valid for (days)",
        min_value=1,
        max_value=366,
        initial=DEFAULT_DAYS,
        help_text="1 to 366 days.",
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), "Enter a number from 1 to 366."),
        widget=forms.NumberInput(attrs=_INPUT),
    )


class RobotTokenForm(TokenForm):
    """A new token of a robot, perhaps in place of an older one, which then ends after a while."""

    replaces = forms.TypedChoiceField(
        required=False, coerce=int, empty_value=None, widget=forms.Select(attrs=_SELECT),
        help_text="The older token ends after the overlap: time to change it where it is used.",
    )  # fmt: skip
    overlap_hours = forms.TypedChoiceField(
        label="Overlap", required=False, coerce=int, initial=OVERLAP_HOURS,
        choices=((0, "none: it ends now"), (1, "1 hour"), (24, "1 day"), (168, "7 days")),
        widget=forms.Select(attrs=_SELECT),
    )  # fmt: skip

    def __init__(self, robot: Robot, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = live_tokens().filter(user=robot.user).order_by("-pk")[:_REPLACEABLE_MAX]
        choices = [("", "no token"), *((str(row.pk), f"{row.name} ({row})") for row in rows)]
        self.fields["replaces"].choices = choices  # type: ignore[attr-defined]  # a choice field

    def clean_overlap_hours(self) -> int:
        """Return the overlap; the default when the form was sent without it."""
        given = self.cleaned_data["overlap_hours"]
        return OVERLAP_HOURS if given == "" else given


class EnvironmentForm(forms.Form):
    """A new environment at the end of the team's promotion path."""

    slug = forms.SlugField(
        label="Short name",
        max_length=60,
        help_text="For example staging or production.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    name = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs=_INPUT))
    target_prefix = forms.SlugField(
        max_length=60,
        help_text="shop/api is copied to <prefix>/shop/api. Only Gravingdock can push there.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    required_approvals = forms.IntegerField(
        label="Required approvals", min_value=0, max_value=20, initial=1, widget=forms.NumberInput(attrs=_INPUT)
    )
    registry = forms.ChoiceField(
        required=False,
        help_text="Where images are promoted to. It can be changed until the first promotion.",
        widget=forms.Select(attrs=_SELECT),
    )

    def __init__(self, *args: Any, registries: Sequence[str] = (), **kwargs: Any) -> None:
        """With `registries`, offer them; without, the form has no choice of a registry."""
        super().__init__(*args, **kwargs)
        if registries:
            names = [(name, name) for name in registries]
            self.fields["registry"].choices = [("managed", "the managed registry"), *names]  # type: ignore[attr-defined]  # typed as Field, is a ChoiceField
        else:
            del self.fields["registry"]


class PersonForm(forms.Form):
    """A new account."""

    username = forms.CharField(
        label="User name",
        max_length=60,
        help_text="Lower-case letters and digits, with single . _ - between them. It cannot be changed later.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    full_name = forms.CharField(label="Name", max_length=120, required=False, widget=forms.TextInput(attrs=_INPUT))
    email = forms.EmailField(label="Mail", required=False, widget=forms.EmailInput(attrs=_PLAIN))
    with_password = forms.ChoiceField(
        label="First sign-in",
        choices=(("", "Invitation link"), ("1", "Generated password, to be changed")),
        required=False,
        widget=forms.Select(attrs=_SELECT),
    )
    is_admin = forms.BooleanField(
        label="Admin: creates teams, roles and accounts, and reads all audit logs",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )

    def clean_with_password(self) -> bool:
        """Return whether to generate a password instead of an invitation."""
        return bool(self.cleaned_data["with_password"])


class ProfileForm(forms.Form):
    """The reader's own name, mail and time zone."""

    full_name = forms.CharField(
        label="Name",
        max_length=120,
        required=False,
        widget=forms.TextInput(attrs={**_INPUT, "autocomplete": "name"}),
    )
    email = forms.EmailField(
        label="Mail",
        required=False,
        help_text="An admin can confirm it. A new mail must be confirmed again.",
        widget=forms.EmailInput(attrs={**_INPUT, "autocomplete": "email"}),
    )
    time_zone = forms.ChoiceField(
        label="Time zone",
        help_text="Pages show times in this zone.",
        choices=[(name, name.replace("_", " ")) for name in sorted(zoneinfo.available_timezones())],
        widget=forms.Select(attrs=_SELECT),
    )


class NewPasswordForm(SetPasswordForm):  # type: ignore[type-arg]  # generic in the stubs only
    """A new password, set with a link."""

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        for name, label in (("new_password1", "New password"), ("new_password2", "Confirm new password")):
            self.fields[name].label = label
            self.fields[name].widget.attrs |= {"class": "form-control", "autocomplete": "new-password"}
        self.fields["new_password1"].help_text = "Use at least 12 characters. Common passwords are rejected."
        self.fields["new_password2"].help_text = ""
