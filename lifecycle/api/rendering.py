"""Answers of the API as JSON, written by orjson: of long lists the standard library makes more work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.renderers import JSONRenderer


class FastJSONRenderer(JSONRenderer):
    """DRF's own renderer wherever it has something to decide: an indent that was asked for, a value only it knows."""

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
