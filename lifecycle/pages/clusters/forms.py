"""Forms of the cluster pages."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.admission.models import AdmissionDebt
from lifecycle.admission.services import COMMENT_MAX
from lifecycle.authority.queries import environments_visible_to, teams_where
from lifecycle.clusters.constants import BINDINGS_MAX, STALE_MAX_S, STALE_MIN_S, STALE_S, SUBJECT_MAX, SUBJECTS_MAX
from lifecycle.clusters.models import Cluster, ClusterSecret, Mode, NamespaceBinding

_CONTROL: Final = {"class": "form-control"}
_SELECT: Final = {"class": "form-select"}
_HOUR_S: Final = 3600
_MODES: Final = (
    (Mode.OFF, "Off: allow all, record nothing"),
    (Mode.OBSERVE, "Observe: allow all, record what would be refused"),
    (Mode.WARN, "Warn: allow all, warn who creates it"),
    (Mode.ENFORCE, "Enforce: refuse"),
)


class SettingsForm(forms.Form):
    """The settings of a cluster."""

    mode = forms.ChoiceField(
        choices=_MODES, label="Images that may not run", initial=Mode.OBSERVE, widget=forms.Select(attrs=_SELECT)
    )
    tags = forms.ChoiceField(
        choices=(
            (Cluster.Tags.RESOLVE, "Judge the digest that the tag names now"),
            (Cluster.Tags.REQUIRE_DIGEST, "Refuse images that are named by tag"),
        ),
        label="Images named by tag",
        widget=forms.Select(attrs=_SELECT),
    )
    unbound = forms.ChoiceField(
        choices=((Cluster.Unbound.OBSERVE, "Observe"), (Cluster.Unbound.DENY, "Refuse all images")),
        label="Namespaces without a binding",
        widget=forms.Select(attrs=_SELECT),
    )
    breakglass_subjects = forms.CharField(
        label="Who may break glass",
        required=False,
        max_length=SUBJECTS_MAX * (SUBJECT_MAX + 2),
        help_text="One per line: user:NAME or group:NAME, as the API server names them.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 3, "spellcheck": "false"}),
    )
    stale_after_hours = forms.FloatField(
        label="Trust answers for (hours)",
        min_value=STALE_MIN_S / _HOUR_S,
        max_value=STALE_MAX_S / _HOUR_S,
        initial=STALE_S // _HOUR_S,
        help_text="When Gravingdock cannot renew its answers for longer, enforce refuses.",
        widget=forms.NumberInput(attrs=_CONTROL | {"step": "any"}),
    )

    mutate = forms.BooleanField(
        label="Name images of new Pods by digest",
        required=False,
        help_text="Adds a second webhook to the manifest: apply it again. GitOps tools may see a difference in Pods.",
    )

    @staticmethod
    def values_of(cluster: Cluster) -> dict[str, Any]:
        """Return what the form shows of a cluster."""
        return {
            "mode": cluster.mode,
            "tags": cluster.tags,
            "unbound": cluster.unbound,
            "breakglass_subjects": "\n".join(cluster.breakglass_subjects),
            "mutate": cluster.mutate,
            "stale_after_hours": f"{cluster.stale_after_s / _HOUR_S:g}",
        }

    def settings(self) -> dict[str, Any]:
        """Return the settings as the service takes them."""
        values = self.cleaned_data
        lines = values["breakglass_subjects"].splitlines()
        return {name: values[name] for name in ("mode", "tags", "unbound", "mutate")} | {
            "breakglass_subjects": [line.strip() for line in lines if line.strip()],
            "stale_after_s": round(values["stale_after_hours"] * _HOUR_S),
        }


class NewClusterForm(SettingsForm):
    """A cluster to add."""

    field_order = ("slug", "team", "kind")
    slug = forms.SlugField(
        label="Short name",
        max_length=60,
        help_text="Lower-case letters, digits and hyphens. It is part of addresses and never changes.",
        widget=forms.TextInput(attrs=_CONTROL | {"spellcheck": "false"}),
    )
    team = forms.ChoiceField(widget=forms.Select(attrs=_SELECT))
    kind = forms.ChoiceField(choices=Cluster.Kind.choices, widget=forms.Select(attrs=_SELECT))

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        slugs = teams_where(user, Verb.ENVIRONMENT_MANAGE).order_by("slug").values_list("slug", flat=True)
        self.fields["team"].choices = [(slug, slug) for slug in slugs]  # type: ignore[attr-defined]  # a ChoiceField


class BindingForm(forms.Form):
    """One binding; a row with an empty pattern is no binding."""

    pattern = forms.CharField(
        label="Namespaces",
        max_length=253,
        required=False,
        widget=forms.TextInput(attrs=_CONTROL | {"placeholder": "prod-*", "spellcheck": "false"}),
    )
    environment = forms.ChoiceField(required=False, widget=forms.Select(attrs=_SELECT))
    mode = forms.ChoiceField(
        required=False,
        choices=(("", "As the cluster"), *((mode.value, mode.label) for mode in Mode)),
        widget=forms.Select(attrs=_SELECT),
    )
    allowed_hosts = forms.CharField(
        label="Also from registries",
        required=False,
        max_length=5200,
        widget=forms.TextInput(attrs=_CONTROL | {"placeholder": "quay.io", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, environments: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["environment"].choices = [("", "Choose"), *((name, name) for name in environments)]  # type: ignore[attr-defined]  # a ChoiceField

    @staticmethod
    def values_of(row: NamespaceBinding) -> dict[str, Any]:
        """Return what the form shows of a binding."""
        return {
            "pattern": row.pattern,
            "environment": f"{row.environment.team.slug}/{row.environment.slug}",
            "mode": row.mode,
            "allowed_hosts": " ".join(row.allowed_hosts),
        }

    def clean(self) -> None:
        values = self.cleaned_data
        if values.get("pattern") and not values.get("environment"):
            self.add_error("environment", "Choose an environment.")


_Bindings: Final = forms.formset_factory(BindingForm, extra=3, max_num=BINDINGS_MAX, validate_max=True)


def bindings_form(user: User, rows: list[NamespaceBinding], posted: Any = None) -> Any:
    """Return the formset of bindings: those that exist, and three empty ones."""
    visible = environments_visible_to(user).order_by("team__slug", "position")
    names = [f"{team}/{slug}" for team, slug in visible.values_list("team__slug", "slug")]
    known = [BindingForm.values_of(row) for row in rows]
    names += [row["environment"] for row in known if row["environment"] not in names]
    return _Bindings(posted, initial=known, form_kwargs={"environments": names})


class ReviewForm(forms.Form):
    """What a review of a break-glass found."""

    outcome = forms.ChoiceField(choices=AdmissionDebt.Outcome.choices, widget=forms.Select(attrs=_SELECT))
    comment = forms.CharField(
        label="What you found", max_length=COMMENT_MAX, widget=forms.Textarea(attrs=_CONTROL | {"rows": 2})
    )


class DeleteForm(forms.Form):
    """The second thought before a cluster is deleted."""

    slug = forms.CharField(
        label="Short name of the cluster",
        max_length=60,
        help_text="Type it to confirm.",
        widget=forms.TextInput(attrs=_CONTROL | {"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, cluster: Cluster, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cluster = cluster

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if slug.strip() != self.cluster.slug:
            raise forms.ValidationError("This is not the short name of this cluster.")
        return slug


class SecretForm(forms.Form):
    """What a new secret is for."""

    AGENT: Final = "agent"  # the token of a robot
    BOTH: Final = "both"
    KINDS: Final = (
        (ClusterSecret.Kind.ADMISSION, "Admission reviews"),
        (BOTH, "Admission reviews, and the agent"),
        (AGENT, "The agent that reports what runs"),
        (ClusterSecret.Kind.ALERTS, "Alerts"),
    )

    kind = forms.ChoiceField(label="For", choices=KINDS, widget=forms.Select(attrs=_SELECT))
