"""Forms of the administration of sign-in."""

from __future__ import annotations

import json
from typing import Any, Final

import jwt
from django import forms

from accounts.models import Group, Team
from accounts.queries import roles_for_people, weakest_first
from lifecycle.sso.models import ClaimRule, IdentityProvider
from lifecycle.sso.services import SECRET_MAX, NewRule

_INPUT: Final = {"class": "form-control"}
_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_SELECT: Final = {"class": "form-select"}
_CHECK: Final = {"class": "form-check-input"}
_SAMPLE_MAX: Final = 64 * 1024  # characters


class ProviderForm(forms.Form):
    """A provider. Its short name and its issuer cannot be changed later."""

    slug = forms.CharField(
        label="Short name", max_length=60, help_text="Part of the callback address, for example corp.",
        widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
    name = forms.CharField(
        max_length=120, help_text="Shown on the button of the sign-in page.", widget=forms.TextInput(attrs=_INPUT)
    )
    issuer = forms.CharField(
        max_length=300,
        help_text="Exactly as in its discovery document, for example https://login.example.com/realms/corp.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    client_id = forms.CharField(label="Client ID", max_length=300, widget=forms.TextInput(attrs=_PLAIN))
    client_secret = forms.CharField(
        max_length=SECRET_MAX, strip=False, widget=forms.PasswordInput(attrs={**_PLAIN, "autocomplete": "new-password"})
    )
    scopes = forms.CharField(
        max_length=300, initial="openid profile email",
        help_text="Many providers need groups too, to send the claim of groups.", widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
    username_claim = forms.CharField(
        label="Claim of the user name", max_length=60, initial="preferred_username",
        help_text="For new accounts only. It never finds an account.", widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
    is_enabled = forms.BooleanField(
        label="Offer on the sign-in page", required=False, initial=True, widget=forms.CheckboxInput(attrs=_CHECK)
    )
    creates_accounts = forms.BooleanField(
        label="Create an account at the first sign-in of everybody whom the provider knows", required=False,
        widget=forms.CheckboxInput(attrs=_CHECK),
    )  # fmt: skip
    links_by_mail = forms.BooleanField(
        label="Link accounts by mail, when the provider and an admin both verified it. Accounts of admins never.",
        required=False,
        widget=forms.CheckboxInput(attrs=_CHECK),
    )

    @classmethod
    def of(cls, provider: IdentityProvider, values: Any) -> ProviderForm:
        """Return the form that changes a provider; without a new secret, the stored one stays."""
        names = ("name", "client_id", "scopes", "username_claim", "is_enabled", "creates_accounts", "links_by_mail")
        form = cls(values, initial={name: getattr(provider, name) for name in names})
        del form.fields["slug"], form.fields["issuer"]
        form.fields["client_secret"].required = False
        form.fields["client_secret"].help_text = "Leave empty to keep the stored secret."
        return form


class RuleForm(forms.Form):
    """A rule: a claim with a value, and the group or role that it gives."""

    claim = forms.CharField(
        max_length=200, initial="groups", help_text="groups, or a path such as realm_access.roles.",
        widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
    match = forms.ChoiceField(
        choices=((ClaimRule.Match.EXACT, "is exactly"), (ClaimRule.Match.GLOB, "is like (* = any characters)")),
        widget=forms.Select(attrs=_SELECT),
    )
    value = forms.CharField(max_length=255, widget=forms.TextInput(attrs=_PLAIN))
    group = forms.ChoiceField(
        label="Gives the group", required=False, help_text="Groups whose members come from sign-in.",
        widget=forms.Select(attrs=_SELECT),
    )  # fmt: skip
    role = forms.ChoiceField(label="Or the role", required=False, widget=forms.Select(attrs=_SELECT))
    team = forms.ChoiceField(label="In team", required=False, widget=forms.Select(attrs=_SELECT))
    repository_pattern = forms.CharField(
        label="Repositories", max_length=255, initial="*", widget=forms.TextInput(attrs=_PLAIN)
    )
    environment = forms.SlugField(required=False, max_length=60, widget=forms.TextInput(attrs=_PLAIN))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        groups = Group.objects.filter(source=Group.Source.SSO).select_related("team").order_by("team", "slug")
        none = [("", "—")]
        roles = [role.slug for role in weakest_first(roles_for_people())]
        teams = Team.objects.order_by("slug").values_list("slug", flat=True)
        self.fields["group"].choices = [*none, *((str(group), str(group)) for group in groups)]  # type: ignore[attr-defined]  # a choice field
        self.fields["role"].choices = [*none, *((slug, slug) for slug in roles)]  # type: ignore[attr-defined]  # likewise
        self.fields["team"].choices = [*none, *((slug, slug) for slug in teams)]  # type: ignore[attr-defined]  # likewise

    def rule(self) -> NewRule:
        """Return the rule as the services take it."""
        return NewRule(**self.cleaned_data)


class SampleForm(forms.Form):
    """Sample claims, as JSON, or in a token whose signature is not checked."""

    sample = forms.CharField(
        label="Claims or ID token",
        max_length=_SAMPLE_MAX,
        help_text="JSON, or an ID token. Only its claims are read; nothing is stored.",
        widget=forms.Textarea(attrs={**_PLAIN, "rows": 8, "class": "form-control mono"}),
    )

    def clean_sample(self) -> dict[str, Any]:
        """Return the claims; raises ValidationError."""
        return claims_of(self.cleaned_data["sample"])


def claims_of(text: str) -> dict[str, Any]:
    """Return the claims in JSON or in a token, for a preview only; raises ValidationError."""
    try:
        if text.strip().startswith("{"):
            claims = json.loads(text)
        else:
            claims = jwt.decode(text.strip(), options={"verify_signature": False})
    except (ValueError, RecursionError, jwt.PyJWTError):
        claims = None
    if not isinstance(claims, dict):
        raise forms.ValidationError("This is neither a JSON object nor a token.")
    return claims
