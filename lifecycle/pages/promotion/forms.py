"""What people type about a promotion."""

from __future__ import annotations

from typing import Any, cast

from django import forms

from lifecycle.environments.models import Environment


class RequestForm(forms.Form):
    """Where to, under which tag, and why."""

    environment = forms.ModelChoiceField(
        Environment.objects.none(),
        empty_label=None,
        widget=forms.RadioSelect,
        error_messages={"required": "Choose where it should go."},
    )
    tag = forms.CharField(
        max_length=128,
        required=False,
        help_text="The tag it gets there, beside the tag current. Empty: the one it has now.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )
    reason = forms.CharField(
        max_length=2000,
        help_text="Whoever approves decides by it.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )

    def __init__(self, environments: list[Environment], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast("forms.ModelChoiceField[Environment]", self.fields["environment"])
        field.queryset = Environment.objects.filter(pk__in=[row.pk for row in environments]).order_by("position")


class DecisionForm(forms.Form):
    """A comment; who rejects has to give one."""

    reason = forms.CharField(
        label="Comment",
        max_length=2000,
        required=False,
        help_text="What you checked. Needed to reject.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )


class RejectionForm(DecisionForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = True
