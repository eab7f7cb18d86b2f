"""Whatever stands in Redis is data: a pickle under any key that we read is never loaded, and work goes on."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django.db import transaction
from django.test import Client

from accounts.queries import system_user
from config.celery import QUEUES, app
from lifecycle.jobs import services as jobs
from lifecycle.jobs.kinds import WAKE_UP, kind_called
from lifecycle.jobs.models import Job
from lifecycle.registry.services import ensure_managed_registry
from tests.services import Services, wait_until


class Planted:
    """Something that writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.marker,))


def envelope(pickled: bytes, queue: str) -> bytes:
    """Return a message as Celery sends it, with a pickle as its body."""
    properties = {
        "correlation_id": "1", "delivery_mode": 2, "delivery_tag": "planted", "body_encoding": "base64",
        "delivery_info": {"exchange": queue, "routing_key": queue},
    }  # fmt: skip
    return json.dumps({
        "body": base64.b64encode(pickled).decode(),
        "content-encoding": "binary",
        "content-type": "application/x-python-serialize",
        "headers": {"task": WAKE_UP, "id": "1", "lang": "py"},
        "properties": properties,
    }).encode()  # fmt: skip


@pytest.mark.django_db
def test_pickle_in_the_cache_is_not_loaded(services: Services, tmp_path: Path) -> None:
    services.need_redis()
    link = redis.Redis.from_url(services.redis.url())
    link.set(cache.make_key("readyz"), pickle.dumps(Planted(tmp_path / "ran")))
    assert Client().get("/readyz").json() == {"postgresql": "ok", "redis": "ok"}
    assert cache.get("readyz") is None
    cache.set("readyz", {"a": 1})
    assert cache.get("readyz") == {"a": 1}
    assert link.get(cache.make_key("readyz")) == b'{"a":1}'
    assert not (tmp_path / "ran").exists()


def test_pickles_under_every_key_of_the_broker_are_not_loaded(live_stack: Services, tmp_path: Path) -> None:
    link = redis.Redis.from_url(live_stack.redis.url())
    planted = pickle.dumps(Planted(tmp_path / "ran"))
    for queue in QUEUES:
        for priority in ("", "\x06\x163", "\x06\x166", "\x06\x169"):
            link.lpush(queue + priority, envelope(planted, queue))
    with transaction.atomic():
        job = jobs.queue(kind_called("crawl"), subject_id=ensure_managed_registry().pk, actor=system_user())
    wait_until(lambda: Job.objects.filter(pk=job.pk, attempts__gt=0).exists(), 60)
    wait_until(lambda: not any(link.llen(queue) for queue in QUEUES), 60)
    assert live_stack.is_alive("worker")
    live_stack.end_writers()
    for queue in QUEUES:
        link.sadd(f"_kombu.binding.{queue}", planted)
        link.lpush(queue, planted)
    link.hset("unacked", "planted", planted)
    link.zadd("unacked_index", {"planted": 1})
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        for queue in QUEUES:
            with suppress(ValueError):  # what it cannot read is an error, or text
                channel.get_table(queue)
            with suppress(ValueError):
                channel._get(queue)
        with suppress(ValueError):
            channel.qos.restore_by_tag("planted")
    assert not (tmp_path / "ran").exists()
    assert "ContentDisallowed" in live_stack.log("worker") + live_stack.log("builder")
    pickle.loads(planted)  # the plant works
    assert (tmp_path / "ran").exists()
