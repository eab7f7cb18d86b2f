"""The hook for registry notifications: authentication, limits, stored deliveries and queued jobs."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError
from django.test import Client

from lifecycle.ingest import services as ingest
from lifecycle.ingest.models import Delivery
from lifecycle.jobs.models import Job
from lifecycle.oci.constants import MediaType
from lifecycle.registry.services import ensure_managed_registry

URL = "/hooks/registry/managed"
pytestmark = pytest.mark.django_db


def event(number: int = 1, **changes: Any) -> dict[str, Any]:
    target = {
        "mediaType": MediaType.OCI_MANIFEST.value,
        "digest": "sha256:" + "a" * 64,
        "size": 7,
        "repository": "shop/api",
        "tag": "1.0",
    }
    target |= changes.pop("target", {})
    notification = {"id": f"event-{number}", "action": "push", "target": target, "actor": {"name": "anna"}}
    return notification | {"source": {"instanceID": "one"}} | changes


def post(body: Any, *, secret: str | None = None, url: str = URL, **more: Any) -> int:
    raw = body if isinstance(body, bytes) else json.dumps({"events": body}).encode()
    given = settings.REGISTRY_HOOK_SECRET if secret is None else secret
    return (
        Client(enforce_csrf_checks=True)
        .post(
            url,
            raw,
            content_type="application/vnd.docker.distribution.events.v1+json",
            headers={"Authorization": f"Bearer {given}"},
            **more,
        )
        .status_code
    )


def test_repeated_notification_is_stored_once_and_queues_one_job() -> None:
    for _ in range(100):
        assert post([event()]) == 202
    assert (Delivery.objects.count(), Job.objects.count()) == (1, 1)
    assert post([event(2), event(3)]) == 202  # other events for the same tag: one job waits
    assert (Delivery.objects.count(), Job.objects.count()) == (3, 1)
    assert post([event(4, target={"tag": "2.0"})]) == 202
    assert Job.objects.count() == 2


@pytest.mark.parametrize("secret", ["", "wrong", "ä"])
def test_wrong_secret_gets_401_and_stores_nothing(secret: str) -> None:
    assert post([event()], secret=secret) == 401
    assert not Delivery.objects.exists()


def test_unknown_registry_gets_401_like_a_wrong_secret() -> None:
    assert post([event()], url="/hooks/registry/other") == 401


def test_body_over_the_limit_gets_413() -> None:
    assert post(b"x" * (1024 * 1024 + 1)) == 413
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("method", ["get", "head", "put", "delete"])
def test_other_methods_get_405(method: str) -> None:
    answer = getattr(Client(), method)(URL, headers={"Authorization": f"Bearer {settings.REGISTRY_HOOK_SECRET}"})
    assert answer.status_code == 405


def test_trailing_slash_gets_404() -> None:
    assert post([event()], url=URL + "/") == 404


def test_database_error_gets_503_so_that_registry_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise DatabaseError("away")

    monkeypatch.setattr(ingest, "receive", fail)
    assert post([event()]) == 503


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"events":7}', b'{"events":[7,null]}', b"\xff", b"[" * 5000, b'{"events":[{}]}',
     b'{"events":[{"id":"\\u0000","target":{"repository":"\\ud800"},"source":7,"actor":[]}]}'],
)  # fmt: skip
def test_unusable_content_is_accepted_without_a_job(body: bytes) -> None:
    assert post(body) == 202
    assert post(body) == 202
    assert not Job.objects.exists()
    assert Delivery.objects.count() <= 1


def test_blobs_and_pulls_queue_no_job() -> None:
    assert post([event(1, target={"mediaType": "application/octet-stream"}), event(2, action="pull")]) == 202
    assert (Delivery.objects.count(), Job.objects.count()) == (2, 0)


def test_mutated_notifications_never_raise() -> None:
    base, chance = json.dumps({"events": [event()]}).encode(), random.Random(7)
    registry = ensure_managed_registry()
    for _ in range(400):
        body = bytearray(base)
        for _ in range(chance.randrange(1, 6)):
            where = chance.randrange(len(body))
            body[where : where + chance.randrange(3)] = bytes(chance.randrange(256) for _ in range(chance.randrange(4)))
        ingest.receive(registry, bytes(body))
