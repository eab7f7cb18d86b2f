"""Where a request comes from: the one place that decides whom to believe about it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from django.conf import settings


def client_address(meta: Mapping[str, Any]) -> str | None:
    """Return the address a request came from, by its WSGI variables; None when there is none, as over a socket.

    What a client says about itself is not believed. Behind a proxy (`BEHIND_PROXY`) the connection is the proxy's, and
    the last entry of X-Forwarded-For is what that proxy wrote; whatever stands before it, the client may have sent.
    """
    if settings.BEHIND_PROXY:
        told = parse_address(str(meta.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2])
        if told is not None:
            return told
    return parse_address(str(meta.get("REMOTE_ADDR") or ""))


def parse_address(text: str) -> str | None:
    """Return an IP address in its usual form, or None when `text` is none."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return None
