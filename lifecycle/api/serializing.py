"""Input parsing: request bodies that reject unknown fields, and filters shared with the pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django.forms import Form
from rest_framework import serializers

# JSON types by kind of field, as the OpenAPI document says. DRF would also take 0 as a text and "yes" as true.
_TYPES: Final[tuple[tuple[type[serializers.Field[Any, Any, Any, Any]], type, str], ...]] = (
    (serializers.CharField, str, "Enter a text."),
    (serializers.IntegerField, int, "Enter a whole number."),
    (serializers.BooleanField, bool, "Enter true or false."),
)


class StrictSerializer(serializers.Serializer[Any]):
    """A request body that rejects unknown fields and values of another JSON type with 400.

    An unknown field is a mistake, or an attempt to set a hidden field.
    """

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            problems: dict[str, Any] = {name: ["Unknown field."] for name in sorted(set(data) - set(self.fields))}
            for name, field in self.fields.items():
                if name in data and (problem := _type_problem(field, data[name])):
                    problems[name] = problem
            if problems:
                raise serializers.ValidationError(problems)
        return super().to_internal_value(data)


def _type_problem(field: Any, value: Any) -> list[str] | dict[Any, Any] | None:
    """Return what is wrong with the type of a value, by position or name inside lists and objects; None if nothing."""
    if value is None:  # `allow_null` decides
        return None
    for kind, wanted, text in _TYPES:
        if isinstance(field, kind):
            is_right = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
            return None if is_right else [text]
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(field, serializers.ListField) and isinstance(value, list):
        inner = enumerate(value)
    elif isinstance(field, serializers.DictField) and isinstance(value, dict):
        inner = value.items()
    return {key: problem for key, item in inner if (problem := _type_problem(field.child, item))} or None


def require_valid(form: Form) -> dict[str, Any]:
    """Return the cleaned data of a form; raises ValidationError (400) with the form's messages."""
    if not form.is_valid():
        raise serializers.ValidationError(
            {name: [str(error) for error in errors] for name, errors in form.errors.items()}
        )
    return form.cleaned_data
