"""Clients that act as one user."""

from __future__ import annotations

from typing import Any

import httpx
from django.test import Client

from accounts import tokens
from accounts.models import User


class Caller:
    """A client of the API that carries one user's token."""

    def __init__(self, user: User) -> None:
        self.headers = {"Authorization": f"Bearer {tokens.create_token(user, kind='pat', name='t')[1]}"}

    def get(self, path: str, **query: Any) -> Any:
        return Client().get(f"/api/v1/{path}", query, headers=self.headers)

    def post(self, path: str, body: Any = None) -> Any:
        return Client().post(f"/api/v1/{path}", body or {}, content_type="application/json", headers=self.headers)

    def put(self, path: str, body: Any, **headers: str) -> Any:
        given = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        return Client().put(f"/api/v1/{path}", body, content_type="application/json", headers=given)

    def patch(self, path: str, body: Any) -> Any:
        return Client().patch(f"/api/v1/{path}", body, content_type="application/json", headers=self.headers)

    def delete(self, path: str) -> Any:
        return Client().delete(f"/api/v1/{path}", headers=self.headers)


def browser(user: User) -> Client:
    """Return a browser in which `user` is signed in."""
    client = Client()
    client.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


_PASSED = ("Authorization", "If-Match", "Content-Encoding")


def to_application(request: httpx.Request) -> httpx.Response:
    """Send a request to the application, with all middleware, in the transaction of the test."""
    answer = Client().generic(
        request.method,
        request.url.raw_path.decode(),
        request.content,
        content_type=request.headers.get("Content-Type", ""),
        headers={name: request.headers[name] for name in _PASSED if name in request.headers},
    )
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return httpx.Response(answer.status_code, headers=dict(answer.headers), content=content)
