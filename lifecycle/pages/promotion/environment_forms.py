"""Forms of an environment: settings and approval rules, windows, holds."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final

from django import forms

from lifecycle.core import clock
from lifecycle.environments.models import Environment, Hold, PromotionWindow
from lifecycle.promotion.environments import RuleWish, rule_words

_INPUT: Final = {"class": "form-control"}
_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_SELECT: Final = {"class": "form-select"}
_CHECK: Final = {"class": "form-check-input"}
_HOURS_MAX: Final = 8784
_RULE: Final = re.compile(r"\s*([^:]{1,80}):\s*([0-9]{1,2}) of (?:(role|team) ([a-z0-9_-]{1,60})|([^:]{1,400}))\s*")


def _hours(label: str, help_text: str, *, least: float = 0.0) -> forms.FloatField:
    return forms.FloatField(
        label=label,
        min_value=least,
        max_value=_HOURS_MAX,
        help_text=help_text,
        widget=forms.NumberInput(attrs=_INPUT | {"step": "any"}),
    )


def _hours_of(seconds: int) -> float | int:
    """Return seconds as hours: 168, not 168.0."""
    return seconds // 3600 if seconds % 3600 == 0 else seconds / 3600


def _check(label: str) -> forms.BooleanField:
    return forms.BooleanField(label=label, required=False, widget=forms.CheckboxInput(attrs=_CHECK))


class EnvironmentSettingsForm(forms.Form):
    """The settings and the approval rules of one environment, at the revision that the user saw."""

    revision = forms.IntegerField(widget=forms.HiddenInput)
    name = forms.CharField(max_length=120, required=False, widget=forms.TextInput(attrs=_INPUT))
    position = forms.IntegerField(
        min_value=1,
        max_value=1000,
        help_text="On the promotion path; 1 is first.",
        widget=forms.NumberInput(attrs=_INPUT),
    )
    target_prefix = forms.CharField(
        label="Target prefix", max_length=60, required=False, help_text="Only while nothing was promoted below it.",
        widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
    is_archived = _check("Archived: nothing is promoted to it")
    is_production = _check("This is production")
    is_internet_facing = _check("It can be reached from the internet")
    required_approvals = forms.IntegerField(
        label="Approvals", min_value=0, max_value=20, help_text="From different people, in all.",
        widget=forms.NumberInput(attrs=_INPUT),
    )  # fmt: skip
    rules = forms.CharField(
        label="Approval rules",
        required=False,
        max_length=4000,
        help_text="One a line: security: 1 of role security, ops: 1 of team ops, or leads: 1 of kim, lee.",
        widget=forms.Textarea(attrs=_PLAIN | {"rows": 3}),
    )
    requires_signed_votes = _check("Only approvals signed with a passkey count")
    excludes_requester = _check("The requester cannot approve")
    excludes_build_trigger = _check("The user who started the rebuild cannot approve")
    excludes_committer = _check("The committer that the image names cannot approve")
    excludes_policy_author = _check("A user who changed the rules after the request cannot approve")
    approve_hours = _hours("Approve within (hours)", "An open request expires after this.", least=0.02)
    execute_hours = _hours("Run within (hours)", "A ready request expires after this.", least=0.02)
    soak_hours = _hours("Soak (hours)", "Time that an image stays in the previous environment first; 0 for none.")
    queue_policy = forms.ChoiceField(
        label="Ready requests",
        choices=(("queue", "run one after another"), ("latest-wins", "a newer one supersedes older ones")),
        widget=forms.Select(attrs=_SELECT),
    )
    auto_execute = _check("Ready requests run without a user")
    verification = forms.ChoiceField(
        label="After the copy",
        required=False,
        choices=(
            ("none", "it has succeeded"),
            ("manual", "a user says whether it works"),
            ("http", "a service says whether it works"),
        ),
        widget=forms.Select(attrs=_SELECT),
    )
    verify_url = forms.CharField(
        label="Address of the service", required=False, max_length=500, widget=forms.TextInput(attrs=_PLAIN)
    )
    verify_secret = forms.CharField(
        label="Shared secret",
        required=False,
        max_length=200,
        help_text="At least 24 characters. Leave empty to keep the present one.",
        widget=forms.PasswordInput(attrs=_PLAIN | {"autocomplete": "new-password"}),
    )
    verify_hours = _hours("Verify within (hours)", "Later, the promotion has failed.", least=0.02)
    verify_hours.required = False
    rolls_back = _check("Request a rollback when that fails")
    registry = forms.ChoiceField(
        required=False, help_text="Only before the first promotion.", widget=forms.Select(attrs=_SELECT)
    )

    def __init__(self, *args: Any, registries: Sequence[str] = (), **kwargs: Any) -> None:
        """With `registries`, offer them; without, the form has no choice of a registry."""
        super().__init__(*args, **kwargs)
        if registries:
            names = [(name, name) for name in registries]
            self.fields["registry"].choices = [("managed", "the managed registry"), *names]  # type: ignore[attr-defined]  # typed as Field, is a ChoiceField
        else:
            del self.fields["registry"]

    _GROUPS: ClassVar = {
        "Place": (
            "name", "position", "target_prefix", "registry", "is_archived", "is_production", "is_internet_facing",
        ),
        "Approval": (
            "required_approvals", "approve_hours", "rules", "requires_signed_votes", "excludes_requester",
            "excludes_build_trigger",
            "excludes_committer", "excludes_policy_author",
        ),
        "Run": ("soak_hours", "execute_hours", "queue_policy", "auto_execute"),
        "Verification": ("verification", "verify_hours", "verify_url", "verify_secret", "rolls_back"),
    }  # fmt: skip

    def groups(self) -> list[tuple[str, list[forms.BoundField]]]:
        """Return the fields by the title of their group."""
        return [(title, [self[name] for name in names if name in self.fields]) for title, names in self._GROUPS.items()]

    @classmethod
    def of(cls, environment: Environment, registries: Sequence[str] = ()) -> EnvironmentSettingsForm:
        """Return the form with what is stored."""
        rules = environment.approval_rules.select_related("role", "team").prefetch_related("people")
        before = Environment.objects.filter(team=environment.team_id, position__lt=environment.position).count()
        stored = {name: getattr(environment, name) for name in cls.base_fields if hasattr(environment, name)}
        return cls(
            registries=registries,
            initial=stored
            | {
                "registry": environment.registry.name if environment.registry is not None else "managed",
                "position": before + 1,
                "target_prefix": environment.prefix,
                "rules": "\n".join(rule_words(rule) for rule in rules),
                "approve_hours": _hours_of(environment.approve_within_s),
                "execute_hours": _hours_of(environment.execute_within_s),
                "soak_hours": _hours_of(environment.soak_s),
                "verify_hours": _hours_of(environment.verify_within_s),
            },
        )

    def clean_rules(self) -> list[RuleWish]:
        """Return the rules of the lines; raises ValidationError for a line that is none."""
        wishes = []
        for line in self.cleaned_data["rules"].splitlines():
            if not line.strip():
                continue
            match = _RULE.fullmatch(line)
            if match is None:
                raise forms.ValidationError(f"Write a rule as “security: 1 of role security”, not “{line[:80]}”.")
            name, required, kind, group, people = match.groups()
            wish = RuleWish(name.strip(), int(required), role=group if kind == "role" else "",
                            team=group if kind == "team" else "",
                            people=tuple(who.strip() for who in people.split(",")) if people else ())  # fmt: skip
            wishes.append(wish)
        return wishes

    def settings(self) -> dict[str, Any]:
        """Return what the service takes."""
        cleaned = dict(self.cleaned_data)
        if not cleaned.get("registry"):
            cleaned.pop("registry", None)
        if prefix := cleaned.pop("target_prefix"):
            cleaned["prefix"] = prefix
        hours, kind = cleaned.pop("verify_hours"), cleaned.pop("verification")
        cleaned |= ({"verify_within_s": round(hours * 3600)} if hours else {}) | (
            {"verification": kind} if kind else {}
        )
        return {
            "revision": cleaned.pop("revision"),
            "position": cleaned.pop("position") - 1,
            "approval_rules": cleaned.pop("rules"),
            "approve_within_s": round(cleaned.pop("approve_hours") * 3600),
            "execute_within_s": round(cleaned.pop("execute_hours") * 3600),
            "soak_s": round(cleaned.pop("soak_hours") * 3600),
            **cleaned,
        }


class PlaceForm(forms.Form):
    """A form about a place: "" is the whole site, `shop` a team, `shop/production` an environment."""

    place = forms.ChoiceField(label="Where", required=False, widget=forms.Select(attrs=_SELECT))

    def __init__(self, places: Sequence[tuple[str, str]], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["place"].choices = list(places)  # type: ignore[attr-defined]  # typed as Field, is a ChoiceField

    def place_values(self) -> dict[str, str]:
        """Return the place as the services take it."""
        team, _, environment = self.cleaned_data["place"].partition("/")
        return {"team": team, "environment": environment}


class WindowForm(PlaceForm):
    """A new freeze, or allowed hours."""

    window_name = forms.CharField(label="Name", max_length=120, widget=forms.TextInput(attrs=_INPUT))
    window_kind = forms.ChoiceField(
        label="Kind",
        choices=(("freeze", "Freeze: nothing runs in it"), ("allow", "Allowed hours: nothing runs outside of it")),
        widget=forms.Select(attrs=_SELECT),
    )
    # No DateTimeField: that reads a time in the zone of the reader, and refuses those that do not occur there.
    starts_at = forms.CharField(
        label="First start", max_length=19, widget=forms.DateTimeInput(attrs=_INPUT | {"type": "datetime-local"})
    )
    hours = _hours("Length (hours)", "By the clock on the wall, also when clocks change.", least=0.02)
    zone = forms.ChoiceField(
        label="Time zone",
        choices=[(name, name.replace("_", " ")) for name in sorted(zoneinfo.available_timezones())],
        widget=forms.Select(attrs=_SELECT),
    )
    rule = forms.CharField(
        label="Repeats", required=False, max_length=200,
        help_text="Empty for once, or an RRULE: FREQ=WEEKLY;BYDAY=MO,TU,WE,TH.", widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
    allows_rollback = _check("Rollbacks can run in spite of it")

    def window(self) -> dict[str, Any]:
        """Return what the service takes."""
        cleaned = self.cleaned_data
        return self.place_values() | {
            "name": cleaned["window_name"],
            "kind": PromotionWindow.Kind(cleaned["window_kind"]).value,
            "starts_at": cleaned["starts_at"],
            "duration_s": round(cleaned["hours"] * 3600),
            "time_zone": cleaned["zone"],
            "rule": cleaned["rule"],
            "allows_rollback": cleaned["allows_rollback"],
        }


class HoldForm(PlaceForm):
    """A new hold, or a stop of the line."""

    hold_reason = forms.CharField(
        label="Reason", max_length=2000, help_text="Shown on every request that it holds.",
        widget=forms.TextInput(attrs=_INPUT),
    )  # fmt: skip
    hold_hours = forms.FloatField(
        label="Ends after (hours)", required=False, min_value=0.02, max_value=_HOURS_MAX,
        help_text="Empty: until somebody lifts it; a stop then ends after 4 hours.",
        widget=forms.NumberInput(attrs=_INPUT | {"step": "any"}),
    )  # fmt: skip
    scope = forms.ChoiceField(
        label="Holds",
        required=False,
        choices=(("all", "all promotions"), ("auto", "promotions that run without a user")),
        widget=forms.Select(attrs=_SELECT),
    )

    def hold(self, *, is_stop: bool) -> dict[str, Any]:
        """Return what the service takes."""
        cleaned = self.cleaned_data
        hours = cleaned["hold_hours"]
        return self.place_values() | {
            "reason": cleaned["hold_reason"],
            "scope": Hold.Scope.ALL if is_stop else cleaned["scope"] or Hold.Scope.ALL,
            "expires_at": clock.now() + timedelta(hours=hours) if hours else None,
            "is_stop": is_stop,
        }
