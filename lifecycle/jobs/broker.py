"""The number of wake-ups in Redis that no worker has taken yet."""

from __future__ import annotations

from collections.abc import Iterable

import redis
from django.conf import settings


def waiting(queues: Iterable[str]) -> dict[str, int]:
    """Return the number of messages in each queue, or an empty dict when Redis does not respond."""
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
