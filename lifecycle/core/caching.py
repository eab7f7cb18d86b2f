"""How values are stored in the cache: as JSON. Redis holds data that other programs can write, so never code."""

from __future__ import annotations

from typing import Any

import orjson
import structlog

log = structlog.get_logger(__name__)


class JsonSerializer:
    """Serializer for Django's Redis cache, in place of pickle, which would run what it reads."""

    def dumps(self, value: Any) -> bytes | int:
        """Return `value` as JSON; whole numbers as they are, because Redis increments them. Raises TypeError."""
        if type(value) is int:
            return value
        return orjson.dumps(value)

    def loads(self, stored: bytes) -> Any:
        """Return the stored value, or None for anything that is not JSON, as if the key did not exist."""
        try:
            return orjson.loads(stored)
        except orjson.JSONDecodeError:
            log.warning("cache_value_is_not_json", size_bytes=len(stored))
            return None
