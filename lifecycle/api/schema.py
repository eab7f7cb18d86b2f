"""Additions to the generated OpenAPI document: authentication, the key of every POST, and the errors."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.describing import describe
from lifecycle.api.rendering import FastJSONRenderer


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # its registry is untyped
    target_class = "lifecycle.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "gdk_..."}


class BrowserSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # its registry is untyped
    target_class = "lifecycle.api.authentication.BrowserSessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}


class SchemaView(SpectacularAPIView):
    """The OpenAPI document of this API, as YAML or JSON."""

    def get_format_suffix(self, **kwargs: Any) -> str | None:
        """Return the format of `?format=`, or None to follow the Accept header; raises ValidationError (400)."""
        text: str | None = self.request.query_params.get("format")
        if text not in {None, "json", "yaml"}:
            raise ValidationError({"format": ["Choose json or yaml."]})
        return text

    def get_renderers(self) -> list[BaseRenderer]:
        """Return the renderers of the document; JSON for OPTIONS, which returns no document."""
        return [FastJSONRenderer()] if self.request.method == "OPTIONS" else super().get_renderers()

    @extend_schema(parameters=[OpenApiParameter("format", str, enum=["json", "yaml"])], exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the document."""
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]  # it has no types
        return response


_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "urn:gravingdock:problem:<code>; stable"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string", "description": "The problem, and what to do"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "A JSON pointer (RFC 6901) to the field, or parameter",
                    },
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes retries safe: for a day, the same request with the same key returns the first response.",
    "schema": {"type": "string", "pattern": r'^"?[\x21\x23-\x7e]{1,128}"?$'},
}


def add_shared_parts(result: dict[str, Any], **_more: Any) -> dict[str, Any]:
    """Add the problem response to every operation, the key to every POST, and examples; a hook of drf-spectacular."""
    result["components"].setdefault("schemas", {})["Problem"] = _PROBLEM
    answer = {
        "description": "A problem (RFC 9457)",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for operations in result["paths"].values():
        for method, operation in operations.items():
            operation["responses"]["default"] = answer
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query" and parameter["schema"].get("type") == "string":
                    parameter["schema"].setdefault("minLength", 1)  # as parameters.py demands
            if method == "post":
                operation.setdefault("parameters", []).append(_KEY)
    describe(result)
    return result
