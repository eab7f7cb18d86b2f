"""The client address of a request, with or without a proxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from django.conf import settings


def client_address(meta: Mapping[str, Any]) -> str | None:
    """Return the client's address from the WSGI variables; None without one, for example over a Unix socket.

    Headers from the client itself are not trusted. Behind a proxy (`BEHIND_PROXY`) the connection comes from the proxy.
    Then the last entry of X-Forwarded-For is used, because the proxy wrote it. The client can forge earlier entries.
    """
    if settings.BEHIND_PROXY:
        forwarded = parse_address(str(meta.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2])
        if forwarded is not None:
            return forwarded
    return parse_address(str(meta.get("REMOTE_ADDR") or ""))


def parse_address(text: str) -> str | None:
    """Return an IP address in its canonical form, or None when `text` is not an IP address."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return None
