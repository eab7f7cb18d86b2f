"""The form of a registry."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from lifecycle.authority.services.registries import CERTIFICATE_MAX, PASSWORD_MAX
from lifecycle.registry.models import Registry

_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class RegistryForm(forms.Form):
    """A registry to promote to: a new one, or a change. The stored password is never shown."""

    name = forms.SlugField(
        max_length=60,
        help_text="Short: environments name it, for example harbor.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    endpoint = forms.CharField(
        label="Address", max_length=300, help_text="https://harbor.example.com, without a path.",
        widget=forms.TextInput(attrs=_PLAIN),
    )  # fmt: skip
    # Not "username": a browser would fill in the reader's own.
    account = forms.CharField(
        label="User name", max_length=255, required=False, widget=forms.TextInput(attrs=_PLAIN),
        help_text="A robot account that can pull and push there. Empty: no credentials.",
    )  # fmt: skip
    account_password = forms.CharField(
        label="Password", max_length=PASSWORD_MAX, required=False, strip=False, help_text="Stored encrypted.",
        widget=forms.PasswordInput(attrs=_PLAIN | {"autocomplete": "new-password"}),
    )  # fmt: skip
    without_tls = forms.BooleanField(
        label="Without TLS: the address begins http://, and anybody on the way reads the password",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    ca_certificate = forms.CharField(
        label="Certificate authority", max_length=CERTIFICATE_MAX, required=False,
        help_text="PEM, if the registry has a certificate of your own authority.",
        widget=forms.Textarea(attrs=_PLAIN | {"rows": 4}),
    )  # fmt: skip

    @classmethod
    def of(cls, registry: Registry, data: Any = None) -> RegistryForm:
        """Return the form with what is stored."""
        form = cls(
            data,
            initial={
                "name": registry.name,
                "endpoint": registry.endpoint,
                "account": registry.username,
                "without_tls": registry.is_without_tls,
                "ca_certificate": registry.ca_certificate,
            },
        )
        if registry.has_password:
            form.fields["account_password"].help_text = "Leave empty to keep the present one."
        return form

    def values(self) -> dict[str, Any]:
        """Return what the services take."""
        cleaned = dict(self.cleaned_data)
        return cleaned | {"username": cleaned.pop("account"), "password": cleaned.pop("account_password")}
