"""The forms of a signing key, and of a trusted source: places and teams, the signers that stay, and one new signer."""

from __future__ import annotations

from typing import Any, Final, cast

from django import forms

from accounts.models import Team, User
from lifecycle.authority.queries import teams_visible_to
from lifecycle.core.errors import Malformed
from lifecycle.trust.models import TrustedSigner, TrustedSource
from lifecycle.trust.types import SourceSpec, parse_source

_INPUT: Final = {"class": "form-control"}
_PLAIN: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class SigningKeyForm(forms.Form):
    """The name of a new signing key."""

    name = forms.CharField(
        max_length=60,
        label="Name of a new key",
        help_text="Lower-case letters, digits and hyphens, such as release-2027.",
        widget=forms.TextInput(attrs=_PLAIN),
    )


class SourceForm(forms.Form):
    """A trusted source. `source_spec` is what was entered, once the form is valid."""

    source_spec: SourceSpec

    name = forms.CharField(
        max_length=60, help_text="Lower-case letters, digits and hyphens.", widget=forms.TextInput(attrs=_PLAIN)
    )
    description = forms.CharField(max_length=300, required=False, widget=forms.TextInput(attrs=_INPUT))
    places = forms.CharField(
        max_length=20_000,
        help_text="One per line: registry and repository, such as docker.io/library/*. * matches any characters.",
        widget=forms.Textarea(attrs={**_PLAIN, "rows": 4}),
    )
    scope = forms.ChoiceField(
        label="Counts for",
        choices=(("teams", "Some teams"), ("all", "All teams")),
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    teams = forms.CharField(
        required=False,
        max_length=20_000,
        help_text="Short names, with spaces between them. Leave empty for all teams.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    needs_signature = forms.BooleanField(
        required=False, initial=True, label="Images must be signed by one of the signers", widget=forms.CheckboxInput
    )
    keep = forms.MultipleChoiceField(
        required=False, label="Signers", help_text="A signer that you clear counts for nothing at once.",
        widget=forms.CheckboxSelectMultiple,
    )  # fmt: skip
    kind = forms.ChoiceField(
        required=False,
        label="Add a signer",
        choices=(("", "None"), *TrustedSigner.Kind.choices),
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    signer_name = forms.CharField(
        required=False, max_length=100, label="Its name", widget=forms.TextInput(attrs=_INPUT)
    )
    pem = forms.CharField(
        required=False,
        max_length=64 * 1024,
        label="Public key or certificates (PEM)",
        widget=forms.Textarea(attrs={**_PLAIN, "rows": 4}),
    )
    issuer = forms.CharField(
        required=False, max_length=500, label="Issuer of a keyless identity", widget=forms.TextInput(attrs=_PLAIN)
    )
    subject = forms.CharField(
        required=False,
        max_length=500,
        label="Identity (subject)",
        help_text="E-mail address or URI, exactly; or with * for text without / and @, and ** for any text.",
        widget=forms.TextInput(attrs=_PLAIN),
    )

    def __init__(self, user: User, source: TrustedSource | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user = user
        self._signers = {str(signer.pk): signer for signer in source.signers.all()} if source is not None else {}
        keep = cast(forms.MultipleChoiceField, self.fields["keep"])
        keep.choices = [(pk, str(signer)) for pk, signer in self._signers.items()]
        if not self._signers:
            del self.fields["keep"]

    @classmethod
    def initial_of(cls, source: TrustedSource) -> dict[str, Any]:
        """Return the initial values for a change of `source`."""
        teams: list[Team] = list(source.teams.all())
        return {
            "name": source.name,
            "description": source.description,
            "places": "\n".join(source.places),
            "scope": "all" if source.is_site_wide else "teams",
            "teams": " ".join(team.slug for team in teams),
            "needs_signature": source.needs_signature,
            "keep": [str(signer.pk) for signer in source.signers.all()],
        }

    def clean_teams(self) -> str:
        """Return the teams as entered; an error at the field names the first that the reader cannot see."""
        text: str = self.cleaned_data["teams"]
        slugs = text.replace(",", " ").split()
        seen = set(teams_visible_to(self._user).filter(slug__in=slugs).values_list("slug", flat=True))
        for slug in slugs:
            if slug not in seen:
                raise forms.ValidationError(f"There is no team {slug[:60]}, or you cannot see it.")
        return text

    def clean(self) -> None:
        """Check the whole source, and show what is wrong at its field."""
        if self.errors:
            return
        try:
            self.source_spec = parse_source(self._spec())
        except Malformed as error:
            field = str(error.details.get("field", "kind"))
            self.add_error(field if field in self.fields else "kind", error.message)

    def _spec(self) -> dict[str, Any]:
        """Return the source that was entered, as `parse_source` reads it."""
        cleaned = self.cleaned_data
        kept = [self._signers[pk] for pk in cleaned.get("keep", ())]
        signers = [_as_spec(signer) for signer in kept]
        if cleaned["kind"]:
            signers.append(self._new_signer(cleaned))
        return {
            "name": cleaned["name"],
            "description": cleaned["description"],
            "places": cleaned["places"].split(),
            "is_site_wide": cleaned["scope"] == "all",
            "teams": [] if cleaned["scope"] == "all" else cleaned["teams"].replace(",", " ").split(),
            "needs_signature": cleaned["needs_signature"],
            "signers": signers,
        }

    def _new_signer(self, cleaned: dict[str, Any]) -> dict[str, Any]:
        signer = {"kind": cleaned["kind"], "name": cleaned["signer_name"]}
        if cleaned["kind"] == "keyless":
            is_pattern = "*" in cleaned["subject"]
            return signer | {"issuer": cleaned["issuer"], "subject": cleaned["subject"], "is_pattern": is_pattern}
        more = {"subject": cleaned["subject"]} if cleaned["kind"] == "notation" else {}
        return signer | {"pem": cleaned["pem"].replace("\r\n", "\n")} | more


def _as_spec(signer: TrustedSigner) -> dict[str, Any]:
    fields = {"kind": signer.kind, "name": signer.name}
    if signer.kind == TrustedSigner.Kind.KEYLESS:
        return fields | {
            "issuer": signer.issuer, "subject": signer.subject, "is_pattern": signer.is_pattern,
            "trusted_root": signer.trusted_root,
        }  # fmt: skip
    more = {"subject": signer.subject} if signer.kind == TrustedSigner.Kind.NOTATION else {}
    return fields | {"pem": signer.pem} | more
