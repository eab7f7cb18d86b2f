"""Forms to request a promotion and to vote on it."""

from __future__ import annotations

from typing import Any, cast

from django import forms

from accounts.models import User
from lifecycle.authority.access import repository_named
from lifecycle.core.errors import NotFound, NotPermitted
from lifecycle.environments.models import Environment
from lifecycle.promotion import threads
from lifecycle.promotion.models import ReviewDebt
from lifecycle.promotion.refusals import why_not_tag
from lifecycle.promotion.release_sets import Wanted
from lifecycle.promotion.rollback import Earlier


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


class ReleaseSetForm(forms.Form):
    """Several images of a team, an environment, and why."""

    environment = forms.ModelChoiceField(
        Environment.objects.none(), empty_label=None, widget=forms.Select(attrs={"class": "form-select"})
    )
    images = forms.CharField(
        max_length=50 * 400,
        help_text="One a line: shop/api:1.4 or shop/web@sha256:... Helm charts and other artifacts too.",
        widget=forms.Textarea(attrs={"class": "form-control mono", "rows": 6, "spellcheck": "false"}),
    )
    reason = forms.CharField(
        max_length=2000,
        help_text="Approvers see this.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )

    def __init__(self, reader: User, environments: list[Environment], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader = reader
        field = cast("forms.ModelChoiceField[Environment]", self.fields["environment"])
        rows = Environment.objects.filter(pk__in=[row.pk for row in environments]).select_related("team")
        field.queryset = rows.order_by("team__slug", "position")
        field.label_from_instance = lambda row: f"{row.team.slug}/{row.slug}"  # type: ignore[assignment]  # as documented

    def clean_images(self) -> list[Wanted]:
        wanted = []
        for line in filter(None, (text.strip() for text in self.cleaned_data["images"].splitlines())):
            name, _, digest = line.partition("@")
            colon = name.rfind(":")
            name, tag = (name[:colon], name[colon + 1 :]) if colon > name.rfind("/") else (name, "")
            if not digest and not tag:
                raise forms.ValidationError(f"{line}: name a tag or a digest.")
            try:
                wanted.append(Wanted(repository_named(self._reader, name), digest, tag))
            except (NotFound, NotPermitted) as error:
                raise forms.ValidationError(f"{line}: {error.message}") from None
        return wanted


class RollbackForm(forms.Form):
    """The earlier image to go back to, and why."""

    digest = forms.ChoiceField(
        label="Go back to", widget=forms.RadioSelect, error_messages={"required": "Choose an image."}
    )
    reason = forms.CharField(
        max_length=2000,
        help_text="What is wrong with the present image. Approvers see this.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )

    def __init__(self, earlier: list[Earlier], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(row.image.digest, row.tag) for row in earlier]
        cast("forms.ChoiceField", self.fields["digest"]).choices = choices
        self.initial.setdefault("digest", choices[0][0] if choices else "")


class BreakGlassForm(forms.Form):
    """Environment, reason, incident and the password of the user, if they have one."""

    environment = forms.ModelChoiceField(
        Environment.objects.none(), empty_label=None, widget=forms.Select(attrs={"class": "form-select"})
    )
    incident = forms.CharField(
        max_length=200,
        help_text="Number or address of the incident.",
        widget=forms.TextInput(attrs={"class": "form-control"}),
    )
    reason = forms.CharField(
        max_length=2000,
        help_text="Why this cannot wait. Whoever reviews it sees this.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )
    password = forms.CharField(
        max_length=256,
        strip=False,
        label="Your password",
        widget=forms.PasswordInput(attrs={"class": "form-control", "autocomplete": "current-password"}),
    )

    def __init__(self, environments: list[Environment], *args: Any, asks_password: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast("forms.ModelChoiceField[Environment]", self.fields["environment"])
        field.queryset = Environment.objects.filter(pk__in=[row.pk for row in environments]).order_by("position")
        if not asks_password:
            del self.fields["password"]


class ReviewForm(forms.Form):
    """What the review of a use of break-glass says."""

    outcome = forms.ChoiceField(choices=ReviewDebt.Outcome.choices)
    reason = forms.CharField(max_length=2000)


class CommentForm(forms.Form):
    """A comment, or an answer to a thread."""

    text = forms.CharField(
        label="Say something",
        max_length=threads.TEXT_MAX,
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 3}),
    )
    is_blocking = forms.BooleanField(
        label="The request waits until this is resolved",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    reply_to = forms.IntegerField(required=False, min_value=1, widget=forms.HiddenInput)


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
