"""PostgreSQL stops during requests: clients get a temporary error, then recover."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import httpx
import pytest
from django.db import connection

from accounts import tokens
from tests.factories import dock
from tests.services import Services, wait_until


@pytest.fixture
def asked(services: Services, transactional_db: None) -> Iterator[httpx.Client]:
    services.end_writers()
    services.need_web()
    anna = dock.user("anna", "viewer", of=dock.team("shop"))
    token = tokens.create_token(anna, kind="pat", name="t")[1]
    with httpx.Client(base_url=services.web_url, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client
    services.need_postgres()


def test_page_and_api_answer_503_until_database_is_back(services: Services, asked: httpx.Client) -> None:
    assert asked.get("/api/v1/images/").status_code == 200
    connection.close()
    services.kill("postgres", signal.SIGINT)
    for _ in range(2):  # over the existing connection, then without one
        answer = asked.get("/api/v1/images/")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "unavailable"
        page = asked.get("/", headers={"Cookie": "gd_session=somebody"})
        assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
        assert "Try again in a few seconds" in page.text
        assert page.headers["Content-Security-Policy"]
    services.need_postgres()
    wait_until(lambda: asked.get("/api/v1/images/").status_code == 200, 10)
