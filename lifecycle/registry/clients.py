"""Clients for registries, with the credentials from their rows."""

from __future__ import annotations

import os
from functools import lru_cache

from django.conf import settings

from lifecycle.core import sealing
from lifecycle.core.errors import RegistryRefused
from lifecycle.core.http import HttpClient
from lifecycle.oci.authorization import Authorizer, Challenged, SelfIssued
from lifecycle.oci.client import RegistryClient
from lifecycle.oci.http_client import HttpRegistryClient
from lifecycle.oci.probing import Probe, probe
from lifecycle.registry.models import Registry


def client_for(registry: Registry) -> RegistryClient:
    """Return a client for `registry`, with our credentials for it. Makes no request.

    Raises RegistryRefused when the stored credentials cannot be decrypted with the current FIELD_KEY.
    """
    http = _shared_http(os.getpid(), registry.ca_certificate)
    authorizer: Authorizer
    if registry.is_managed:
        # This process reaches the registry at REGISTRY_URL. The row's endpoint is the address for users.
        return HttpRegistryClient(settings.REGISTRY_URL, http=http, authorizer=SelfIssued())
    authorizer = Challenged(http, registry.endpoint, registry.username, _password_of(registry))
    return HttpRegistryClient(registry.endpoint, http=http, authorizer=authorizer)


def probe_registry(registry: Registry) -> Probe:
    """Ask a registry whether it is one and takes our credentials, and return what it answers.

    Makes requests. Raises RegistryRefused when the stored credentials cannot be decrypted.
    """
    http = _shared_http(os.getpid(), registry.ca_certificate)
    return probe(registry.endpoint, http=http, username=registry.username, password=_password_of(registry))


def set_credentials(registry: Registry, *, username: str, password: str) -> None:
    """Store our credentials for a registry, sealed for its row; "" and "" remove them. The caller checks the right."""
    registry.username = username
    registry.password_encrypted = sealing.seal(password, registry, "password_encrypted")
    registry.save(update_fields=["username", "password_encrypted"])


def _password_of(registry: Registry) -> str:
    try:
        return sealing.unseal(bytes(registry.password_encrypted), registry, "password_encrypted")
    except sealing.Unreadable as error:
        raise RegistryRefused("The registry's stored credentials cannot be decrypted. Enter them again.") from error


@lru_cache(maxsize=8)
def _shared_http(_process_id: int, authorities: str) -> HttpClient:
    """Return the connection pool of this process for registries with these certificates (PEM).

    A forked child must not use its parent's pool.
    """
    return HttpClient(authorities=authorities)
