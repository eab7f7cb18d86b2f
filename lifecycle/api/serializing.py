"""Input parsing: request bodies that reject unknown fields, and filters shared with the pages."""

from __future__ import annotations

from typing import Any

from django.forms import Form
from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """A request body that rejects unknown fields with 400: they are mistakes, or attempts to set hidden fields."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := set(data) - set(self.fields)):
            raise serializers.ValidationError({name: ["Unknown field."] for name in sorted(unknown)})
        return super().to_internal_value(data)


def require_valid(form: Form) -> dict[str, Any]:
    """Return the cleaned data of a form; raises ValidationError (400) with the form's messages."""
    if not form.is_valid():
        raise serializers.ValidationError(
            {name: [str(error) for error in errors] for name, errors in form.errors.items()}
        )
    return form.cleaned_data
