"""Answers that hold a secret: shown once, cached nowhere, and not kept for a repeated request either."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response


class SecretResponse(Response):
    """An answer of which some fields are secret: whoever stores answers asks `kept_data` for what may be kept."""

    def __init__(self, data: dict[str, Any], *, secrets: tuple[str, ...], status: int) -> None:
        super().__init__(data, status=status, headers={"Cache-Control": "no-store"})
        self.secrets = secrets

    def kept_data(self) -> dict[str, Any]:
        """Return the body with null in place of each secret, and the fact that it was shown before."""
        return {**self.data, **dict.fromkeys(self.secrets), "secret_was_shown_once": True}
