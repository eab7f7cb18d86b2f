"""Forms to request a promotion and to review it."""

from __future__ import annotations

from typing import Any, cast

from django import forms

from lifecycle.environments.models import Environment
from lifecycle.promotion.refusals import why_not_tag


class RequestForm(forms.Form):
    """Environment, tag and reason of a new request."""

    environment = forms.ModelChoiceField(
        Environment.objects.none(),
        empty_label=None,
        widget=forms.RadioSelect,
        error_messages={"required": "Choose an environment."},
    )
    tag = forms.CharField(
        max_length=128,
        required=False,
        help_text='Tag in the environment, in addition to "current". Leave empty to keep the present tag.',
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )
    reason = forms.CharField(
        max_length=2000,
        help_text="Approvers see this.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )

    def __init__(self, environments: list[Environment], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast("forms.ModelChoiceField[Environment]", self.fields["environment"])
        field.queryset = Environment.objects.filter(pk__in=[row.pk for row in environments]).order_by("position")

    def clean_tag(self) -> str:
        tag: str = self.cleaned_data["tag"]
        if tag and (reason := why_not_tag(tag)) is not None:
            raise forms.ValidationError(reason.text)
        return tag


class DecisionForm(forms.Form):
    """An optional comment on an action; see RejectionForm."""

    reason = forms.CharField(
        label="Comment",
        max_length=2000,
        required=False,
        help_text="Say what you checked. Required to reject.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3, "data-key": "c", "aria-keyshortcuts": "c"}),
    )


class RejectionForm(DecisionForm):
    """A comment that is required."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = True
