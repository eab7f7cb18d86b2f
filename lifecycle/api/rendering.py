"""JSON rendering of API responses with orjson, which is faster for long lists than the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.renderers import JSONRenderer


class FastJSONRenderer(JSONRenderer):
    """Renders with orjson, and with DRF's renderer for a requested indent or a type that orjson does not support."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        context = dict(renderer_context or {})
        if data is not None and self.get_indent(accepted_media_type or "", context) is None:
            try:
                return orjson.dumps(data, option=orjson.OPT_UTC_Z)
            except TypeError:  # a lazy text, a Decimal, a lone surrogate
                pass
        return super().render(data, accepted_media_type, renderer_context)
