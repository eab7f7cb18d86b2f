"""Responses with a secret: shown once, never cached, and not stored for repeated requests."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response


class SecretResponse(Response):
    """A response with secret fields. Code that stores responses must store `kept_data` instead."""

    def __init__(self, data: dict[str, Any], *, secrets: tuple[str, ...], status: int) -> None:
        super().__init__(data, status=status, headers={"Cache-Control": "no-store"})
        self.secrets = secrets

    def kept_data(self) -> dict[str, Any]:
        """Return the body with null for each secret, and a flag that the secret was already shown."""
        return {**self.data, **dict.fromkeys(self.secrets), "secret_was_shown_once": True}
