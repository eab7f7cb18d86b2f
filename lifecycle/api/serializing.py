"""How input is read: fields listed, unknown ones refused by name, and the filters of pages shared with them."""

from __future__ import annotations

from typing import Any

from django.forms import Form
from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """A body with a field we do not know is a mistake, or an attempt; it gets 400, never silence."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := set(data) - set(self.fields)):
            raise serializers.ValidationError({name: ["There is no such field."] for name in sorted(unknown)})
        return super().to_internal_value(data)


def require_valid(form: Form) -> dict[str, Any]:
    """Return what a page's form makes of a query string; raises ValidationError (400) with the form's own sentences."""
    if not form.is_valid():
        raise serializers.ValidationError(
            {name: [str(error) for error in errors] for name, errors in form.errors.items()}
        )
    return form.cleaned_data
