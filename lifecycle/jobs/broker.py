"""How many wake-ups lie in Redis, not yet taken by a worker."""

from __future__ import annotations

from collections.abc import Iterable

import redis
from django.conf import settings


def waiting(queues: Iterable[str]) -> dict[str, int]:
    """Return how many messages lie in each queue; nothing when Redis does not answer."""
    names = sorted(set(queues))
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
    try:
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.llen(name)
        return dict(zip(names, pipe.execute(), strict=True))
    except redis.RedisError:
        return {}
    finally:
        client.close()
