"""The page Isolation: paste a manifest, and see how well its pods are isolated."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from lifecycle.evidence.isolation import PROFILES, JudgedPod, judge_manifests
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.requests import reader
from lifecycle.policy.isolation import CHECKS, IMAGE_CHECKS, counts
from lifecycle.policy.isolation_reading import TEXT_MAX, documents_of, manifests_of
from lifecycle.policy.isolation_types import Result

_CONTROL: Final = {"class": "form-control", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
_ORDER: Final = (Result.FAIL, Result.UNKNOWN, Result.PASS, Result.NOT_APPLICABLE)
_PROFILES: Final = {
    "all": "All checks",
    "restricted": "Pod Security: restricted",
    "baseline": "Pod Security: baseline",
}
ROWS_MAX: Final = 2000  # of one page


class IsolationForm(forms.Form):
    """A manifest, and what to check it against."""

    manifest = forms.CharField(
        label="Manifest",
        max_length=TEXT_MAX,
        strip=False,
        help_text="YAML or JSON: a Pod, a Deployment or another controller, or several documents.",
        widget=forms.Textarea(attrs=_CONTROL | {"rows": 14, "class": "form-control mono"}),
    )
    profile = forms.ChoiceField(
        choices=tuple(_PROFILES.items()),
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    digest = forms.CharField(
        label="Digest of the image",
        required=False,
        max_length=135,
        help_text="For the main container, if it names no digest itself.",
        widget=forms.TextInput(attrs=_CONTROL),
    )
    environment = forms.CharField(
        required=False,
        max_length=130,
        help_text="Such as shop/production: shows what its rules enforce at admission.",
        widget=forms.TextInput(attrs=_CONTROL),
    )


@require_http_methods(["GET", "HEAD", "POST"])
def isolation(request: HttpRequest) -> HttpResponse:
    """Check a pasted manifest. Nothing is stored."""
    context: dict[str, Any] = {"checks": CHECKS.values(), "image_checks": IMAGE_CHECKS}
    if request.method != "POST":
        asked = {name: request.GET.get(name, "") for name in ("digest", "environment")}
        profile = request.GET.get("profile", "all")
        form = IsolationForm(initial=asked | {"profile": profile if profile in PROFILES else "all"})
        return render(request, "lifecycle/policies/isolation.html", context | {"form": form})
    form, status = IsolationForm(request.POST), 422
    if form.is_valid():
        with errors_shown_on(form, "manifest"):
            values = form.cleaned_data
            manifests = manifests_of(documents_of(values["manifest"]))
            judged = judge_manifests(
                reader(request),
                manifests,
                digest=values["digest"].strip(),
                profile=values["profile"],
                environment=values["environment"].strip(),
            )
            context |= {"pods": [_shown(pod) for pod in judged], "others": manifests.others}
            context["with_modes"] = bool(values["environment"].strip())
            status = 200
    return render(request, "lifecycle/policies/isolation.html", context | {"form": form}, status=status)


def _shown(judged: JudgedPod) -> dict[str, Any]:
    """Return one pod as the page shows it: the worst verdicts first."""
    rows = [{"verdict": verdict, "check": CHECKS[verdict.check]} for verdict in judged.verdicts]
    rows.sort(key=lambda row: _ORDER.index(row["verdict"].result))  # type: ignore[attr-defined]  # a Verdict
    return {
        "pod": judged.pod,
        "judged": judged,
        "counts": counts(judged.verdicts),
        "rows": rows[:ROWS_MAX],
        "hidden": max(0, len(rows) - ROWS_MAX),
    }
