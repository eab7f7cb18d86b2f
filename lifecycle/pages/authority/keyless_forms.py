"""Forms of the page where CI jobs become a robot."""

from __future__ import annotations

from typing import Final

from django import forms

from lifecycle.keyless.constants import IDENTITY_MAX
from lifecycle.keyless.types import RefusedIdentity
from lifecycle.keyless.verifying import issuer_of

_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class TrustRuleForm(forms.Form):
    """A new trust rule."""

    name = forms.CharField(
        max_length=120, help_text="For example GitHub, main branch.", widget=forms.TextInput(attrs=_PLAIN)
    )
    issuer = forms.CharField(
        max_length=300,
        help_text="https://token.actions.githubusercontent.com, https://gitlab.com, or the issuer of your cluster.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    claims = forms.CharField(
        help_text="One a line: repository=acme/shop. * matches any characters, but not in place of the owner.",
        widget=forms.Textarea(attrs={**_PLAIN, "rows": 4, "placeholder": "repository=acme/shop\nref=refs/heads/main"}),
    )
    audience = forms.CharField(
        max_length=300,
        required=False,
        help_text="Leave empty for the address of this installation.",
        widget=forms.TextInput(attrs=_PLAIN),
    )

    def clean_claims(self) -> dict[str, str]:
        """Return {claim: pattern}."""
        found: dict[str, str] = {}
        for line in self.cleaned_data["claims"].splitlines():
            name, equals, pattern = line.strip().partition("=")
            if not line.strip():
                continue
            if not equals or name.strip() in found:
                raise forms.ValidationError(f"Write each claim once, as name=value. This line is not: {line[:80]}")
            found[name.strip()] = pattern.strip()
        return found


class IdentityForm(forms.Form):
    """An identity token to try."""

    token = forms.CharField(
        label="Identity token",
        max_length=IDENTITY_MAX,
        help_text="Print it in a job, and paste it here. It is not stored and not used up.",
        widget=forms.Textarea(attrs={**_PLAIN, "rows": 4}),
    )

    def clean_token(self) -> str:
        """Return the token; refused when it names no issuer, because there is nothing to try then."""
        text: str = self.cleaned_data["token"].strip()
        try:
            issuer_of(text)
        except RefusedIdentity as error:
            raise forms.ValidationError(str(error)) from error
        return text
