"""Forms of the policy editor and of waivers. The fields of a rule come from the catalogue of kinds."""

from __future__ import annotations

from typing import Any, Final, cast

from django import forms

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import teams_where
from lifecycle.policies.services import NOTE_MAX
from lifecycle.policy.catalogue import KINDS
from lifecycle.policy.parameters import SEVERITY_CHOICES, TEXT_MAX, Parameter, Type
from lifecycle.policy.rulesets import MODES, RULES_MAX, WAIVER_DAYS_MAX, Mode, Point, Rule

_CONTROL: Final = {"class": "form-control"}
_SELECT: Final = {"class": "form-select"}
_POINT_WORDS: Final = {
    Point.INGEST: "At ingest",
    Point.REQUEST: "At a request",
    Point.EXECUTION: "When it runs",
    Point.ADMISSION: "At admission",
}

_POINT_HELP: Final = {
    Point.INGEST: "Nothing stops a push: the team is told, and the image page shows it.",
    Point.ADMISSION: "Waits for the connection to clusters. Nothing is judged there yet.",
}


def _field_of(parameter: Parameter) -> forms.Field:
    common: dict[str, Any] = {"label": parameter.title, "help_text": parameter.help, "required": parameter.is_required}
    if parameter.type is Type.NUMBER:
        widget = forms.NumberInput(attrs=_CONTROL)
        return forms.IntegerField(min_value=0, max_value=parameter.maximum, widget=widget, **common)
    if parameter.type is Type.FLAG:
        return forms.BooleanField(
            label=parameter.title, help_text=parameter.help, required=False,
            widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
        )  # fmt: skip
    if parameter.type is Type.SEVERITY:
        choices = [(name, name) for name in SEVERITY_CHOICES]
        return forms.ChoiceField(choices=choices, widget=forms.Select(attrs=_SELECT), **common)
    rows = 3 if parameter.type is Type.TEXTS or parameter.name == "expression" else 1
    return forms.CharField(max_length=TEXT_MAX, widget=forms.Textarea(attrs=_CONTROL | {"rows": rows}), **common)


class RuleForm(forms.Form):
    """One rule of a set. Its kind is fixed when it is added."""

    key = forms.CharField(
        max_length=60,
        help_text="Lower-case letters, digits, - and _. Waivers and files name the rule by it.",
        widget=forms.TextInput(attrs=_CONTROL),
    )
    kind = forms.ChoiceField(choices=[(name, name) for name in KINDS], widget=forms.HiddenInput)
    title = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs=_CONTROL))
    waivable = forms.BooleanField(
        required=False,
        label="Waivers are possible",
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    max_waiver_days = forms.IntegerField(
        min_value=1,
        max_value=WAIVER_DAYS_MAX,
        initial=90,
        label="Longest waiver, in days",
        widget=forms.NumberInput(attrs=_CONTROL),
    )
    remove = forms.BooleanField(
        required=False,
        label="Remove this rule",
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )

    def __init__(self, kind: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind_of = KINDS[kind]
        for point in Point:
            can = [mode for mode in MODES if not self.kind_of.waits_for or mode in {Mode.OFF, Mode.OBSERVE}]
            self.fields[f"at_{point}"] = forms.ChoiceField(
                choices=[(mode.value, mode.value) for mode in can],
                label=_POINT_WORDS[point],
                initial=Mode.OBSERVE.value,
                help_text=_POINT_HELP.get(point, ""),
                widget=forms.Select(attrs=_SELECT),
            )
        for parameter in self.kind_of.parameters:
            self.fields[f"is_{parameter.name}"] = _field_of(parameter)

    @property
    def mode_fields(self) -> list[forms.BoundField]:
        return [self[f"at_{point}"] for point in Point]

    @property
    def parameter_fields(self) -> list[forms.BoundField]:
        return [self[f"is_{parameter.name}"] for parameter in self.kind_of.parameters]

    def as_record(self) -> dict[str, Any]:
        """Return the rule as a policy file has it, unchecked. Call it after `is_valid`."""
        data = self.cleaned_data
        return {
            "key": data["key"],
            "kind": self.kind_of.name,
            "title": data["title"],
            "parameters": {item.name: data[f"is_{item.name}"] for item in self.kind_of.parameters},
            "modes": {point.value: data[f"at_{point}"] for point in Point},
            "waivable": data["waivable"],
            "max_waiver_days": data["max_waiver_days"],
        }


def initial_of(rule: Rule) -> dict[str, Any]:
    """Return the values of a stored rule for its form."""
    values = {
        f"is_{name}": "\n".join(value) if isinstance(value, tuple) else value for name, value in rule.parameters.items()
    }
    modes = {f"at_{point}": rule.mode(point).value for point in Point}
    return {
        "key": rule.key,
        "kind": rule.kind,
        "title": rule.title,
        "waivable": rule.is_waivable,
        "max_waiver_days": rule.max_waiver_days,
        **modes,
        **values,
    }


def initial_for(kind: str) -> dict[str, Any]:
    """Return the values of a new rule: the defaults, in observe everywhere."""
    values = {
        f"is_{item.name}": "\n".join(item.default) if isinstance(item.default, tuple) else item.default
        for item in KINDS[kind].parameters
    }
    return {"key": kind.replace("_", "-"), "kind": kind, "waivable": True, "max_waiver_days": 90, **values}


class EditorForm(forms.Form):
    """What belongs to the whole set: the revision that was changed, the number of rule forms, and a note."""

    revision = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    count = forms.IntegerField(min_value=0, max_value=RULES_MAX, widget=forms.HiddenInput)
    note = forms.CharField(
        max_length=NOTE_MAX,
        required=False,
        label="Why",
        help_text="Stored with the revision.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 2}),
    )


class TryForm(forms.Form):
    """An expression, and the image over whose facts it is tried."""

    expression = forms.CharField(
        max_length=TEXT_MAX,
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 4, "spellcheck": "false", "data-completes": "cel-names"}),
    )
    digest = forms.CharField(
        max_length=135, label="Digest of an image", widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false"})
    )
    environment = forms.CharField(
        max_length=60,
        required=False,
        help_text="Slug of an environment of the image's team; only expressions about it need one.",
        widget=forms.TextInput(attrs=_CONTROL),
    )


def _offering(name: str) -> forms.TextInput:
    """Return a text field for which the page has a list of names to choose from."""
    return forms.TextInput(attrs=_CONTROL | {"list": f"offered-{name}", "autocomplete": "off"})


class WaiverForm(forms.Form):
    """A request for an exception."""

    team = forms.CharField(max_length=60, widget=_offering("team"))
    rule = forms.CharField(max_length=60, help_text="Key of the rule.", widget=_offering("rule"))
    repository = forms.CharField(
        max_length=255,
        required=False,
        help_text="Source repository, such as shop/api. Name it, or an environment.",
        widget=_offering("repository"),
    )
    environment = forms.CharField(max_length=60, required=False, widget=_offering("environment"))
    digest = forms.CharField(
        max_length=135, required=False, help_text="Only this image.", widget=forms.TextInput(attrs=_CONTROL)
    )
    advisory = forms.CharField(
        max_length=200,
        required=False,
        help_text="Only this finding, such as CVE-2026-1, or for a rule about files only this path.",
        widget=forms.TextInput(attrs=_CONTROL),
    )
    package = forms.CharField(
        max_length=500,
        required=False,
        help_text="Only in this package, with its namespace: debian/openssl.",
        widget=forms.TextInput(attrs=_CONTROL),
    )
    reason = forms.CharField(max_length=2000, widget=forms.Textarea(attrs=_CONTROL | {"rows": 3}))
    ticket = forms.CharField(max_length=300, widget=forms.TextInput(attrs=_CONTROL))
    until = forms.DateField(
        label="Ends on",
        help_text="It ends at the start of this day, UTC.",
        widget=forms.DateInput(attrs=_CONTROL | {"type": "date"}),
    )


class DecisionForm(forms.Form):
    """A comment on a decision about a waiver."""

    reason = forms.CharField(
        label="Comment",
        max_length=2000,
        required=False,
        help_text="Required to reject.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 3}),
    )


_PLAIN: Final = _CONTROL | {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class NewCheckForm(forms.Form):
    """A new external check."""

    team = forms.ChoiceField(label="For the rules of", required=False, widget=forms.Select(attrs=_SELECT))
    name = forms.CharField(
        max_length=60, help_text="Lower-case letters, digits, - and _.", widget=forms.TextInput(attrs=_PLAIN)
    )
    address = forms.CharField(
        max_length=1000,
        help_text="Such as https://scanner.example.com/check. It is stored encrypted, and not shown again.",
        widget=forms.TextInput(attrs=_PLAIN),
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        site = [("", "The site")] if user.is_superuser else []
        teams = [(team.slug, str(team)) for team in teams_where(user, Verb.POLICY_MANAGE)]
        cast(forms.ChoiceField, self.fields["team"]).choices = site + teams


class CheckForm(forms.Form):
    """A change of an external check."""

    address = forms.CharField(
        label="New address",
        required=False,
        max_length=1000,
        help_text="Leave empty to keep the present one.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    renew_secret = forms.BooleanField(
        required=False, label="Make a new secret", widget=forms.CheckboxInput(attrs={"class": "form-check-input"})
    )
