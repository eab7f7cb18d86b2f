"""From a row to a client that can speak to that registry."""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings

from lifecycle.core.errors import RegistryRefused
from lifecycle.core.http import HttpClient
from lifecycle.oci.authorization import Authorizer, Challenged, SelfIssued
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.http_client import HttpRegistryClient
from lifecycle.registry.models import Registry


def client_for(registry: Registry) -> RegistryClient:
    """Return a client for `registry`, with our credentials for it. Costs nothing until it is used.

    Raises RegistryRefused when the stored credentials cannot be opened with the present FIELD_KEY.
    """
    http = _shared_http(os.getpid())
    authorizer: Authorizer
    if registry.is_managed:
        # REGISTRY_URL is where this process reaches it; the row's endpoint is what users write.
        return HttpRegistryClient(settings.REGISTRY_URL, http=http, authorizer=SelfIssued())
    authorizer = Challenged(http, registry.endpoint, registry.username, decrypt(bytes(registry.password_encrypted)))
    return HttpRegistryClient(registry.endpoint, http=http, authorizer=authorizer)


def encrypt(secret: str) -> bytes:
    """Return `secret` sealed with FIELD_KEY, as `Registry.password_encrypted` stores it; empty stays empty."""
    return Fernet(settings.FIELD_KEY).encrypt(secret.encode()) if secret else b""


def decrypt(sealed: bytes) -> str:
    """Return what `encrypt` sealed; raises RegistryRefused when the key is another."""
    if not sealed:
        return ""
    try:
        return Fernet(settings.FIELD_KEY).decrypt(sealed).decode()
    except (InvalidToken, UnicodeDecodeError) as error:
        raise RegistryRefused("The registry's stored credentials cannot be opened: enter them again.") from error


@lru_cache(maxsize=1)
def _shared_http(_process_id: int) -> HttpClient:
    """One pool of connections for each process: a child of a fork must not use its parent's."""
    return HttpClient()
