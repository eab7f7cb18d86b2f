"""Registries beside the managed one: an admin adds them, with our credentials, so that images can be copied there."""

from __future__ import annotations

import re
from typing import Final

import httpx
from cryptography import x509
from django.conf import settings
from django.db import transaction

from accounts.models import User
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_access import RegistryDetails
from lifecycle.authority.access import registries_for, registry_for
from lifecycle.core.errors import Conflict, Malformed, NotFound, StaleVersion
from lifecycle.core.http import ForbiddenDestination, origin, parse_outbound_url
from lifecycle.core.providers import Question
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.oci.probing import Probe
from lifecycle.registry.clients import probe_registry, set_credentials
from lifecycle.registry.models import Registry
from lifecycle.registry.services import MANAGED_NAME

PASSWORD_MAX: Final = 8192  # characters; a key file of a cloud has about 2,400
CERTIFICATE_MAX: Final = 64 * 1024  # characters
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# The answer is what was decided for its present address and is not finished.
blocks_address: Final[Question[[Registry], Reason | None]] = Question(
    "does a process need this registry at its present address?"
)
_STALE: Final = "Another user changed this registry. Load it again, then repeat your change."


@transaction.atomic
def add_registry(
    *,
    actor: User,
    name: str,
    endpoint: str,
    username: str = "",
    password: str = "",
    without_tls: bool = False,
    ca_certificate: str = "",
) -> Registry:
    """Add a registry that images can be promoted to. Makes no request: see `test_registry`.

    A registry that an inventory file names already becomes this one, with its repositories. Raises NotPermitted,
    Malformed, or Conflict when the name or the address is taken.
    """
    registries_for(actor)
    address = _address(endpoint, without_tls=without_tls)
    _check(name, username, password, ca_certificate)
    present = Registry.objects.select_for_update().filter(endpoint__in=_both(address)).first()
    if present is not None and (present.is_managed or present.is_added):
        raise Conflict(f"The registry {present} has this address already.")
    if Registry.objects.filter(name=name).exclude(pk=present.pk if present else 0).exists():
        raise Conflict(f"There is already a registry named {name}. Choose another name.")
    registry = present or Registry()
    registry.name, registry.endpoint, registry.is_added = name, address, True
    registry.ca_certificate = _plain(ca_certificate)
    registry.save()
    set_credentials(registry, username=username, password=password)
    is_trusting = bool(registry.ca_certificate)
    _record(Action.REGISTRY_ADDED, registry, actor, is_password=bool(password), is_certificate=is_trusting)
    return registry


@transaction.atomic
def change_registry(
    registry_id: int,
    *,
    actor: User,
    revision: int | None = None,
    name: str | None = None,
    endpoint: str | None = None,
    username: str | None = None,
    password: str = "",
    without_tls: bool | None = None,
    ca_certificate: str | None = None,
) -> Registry:
    """Change a registry that was added; None keeps a value, and "" the password. Without user name, both are removed.

    The stored password never goes to another address or user name, or past other certificate authorities: it must be
    given again. The address of a registry with repositories or unfinished requests cannot change. With `revision`, only
    if nobody changed it since. Raises NotPermitted, NotFound, Malformed, Conflict, StaleVersion.
    """
    registry = _lock(actor, registry_id, revision)
    refuse_if(_why_managed(registry))
    is_plain = registry.is_without_tls if without_tls is None else without_tls
    address = _address(registry.endpoint if endpoint is None else endpoint, without_tls=is_plain)
    who = registry.username if username is None else username
    certificate = registry.ca_certificate if ca_certificate is None else _plain(ca_certificate)
    is_certificate = _plain(certificate) != _plain(registry.ca_certificate)
    keeps = not password and registry.has_password and bool(who)
    if keeps and (is_certificate or (address, who) != (registry.endpoint, registry.username)):
        raise Malformed(
            "Enter the password again: it is not sent to another address or user name, or past another certificate "
            "authority, unseen."
        )
    _check(registry.name if name is None else name, who, "kept" if keeps else password, certificate)
    if address != registry.endpoint:
        if registry.repositories.exists():
            raise Conflict("Images were promoted to this address. Add a registry for the other address instead.")
        refuse_if(blocks_address.ask(registry))
        if Registry.objects.filter(endpoint__in=_both(address)).exclude(pk=registry.pk).exists():
            raise Conflict("Another registry has this address already.")
    if name is not None and Registry.objects.filter(name=name).exclude(pk=registry.pk).exists():
        raise Conflict(f"There is already a registry named {name}. Choose another name.")
    registry.name, registry.endpoint = registry.name if name is None else name, address
    registry.ca_certificate = certificate
    registry.revision += 1
    registry.save(update_fields=["name", "endpoint", "ca_certificate", "revision"])
    is_password = not keeps and (registry.has_password or bool(password))
    if not keeps:
        set_credentials(registry, username=who, password=password)
    _record(Action.REGISTRY_CHANGED, registry, actor, is_password=is_password, is_certificate=is_certificate)
    return registry


@transaction.atomic
def remove_registry(registry_id: int, *, actor: User, revision: int | None = None) -> None:
    """Remove an unused registry with our credentials. One that inventories name stays as a name in them.

    Raises NotPermitted, NotFound, StaleVersion, or Conflict with what uses it.
    """
    registry = _lock(actor, registry_id, revision)
    refuse_if(why_not_remove_registry(registry))
    is_password, is_certificate = registry.has_password, bool(registry.ca_certificate)
    _record(Action.REGISTRY_REMOVED, registry, actor, is_password=is_password, is_certificate=is_certificate)
    if not registry.repositories.exists():
        registry.delete()
        return
    registry.is_added, registry.ca_certificate = False, ""
    registry.save(update_fields=["is_added", "ca_certificate"])
    set_credentials(registry, username="", password="")


def why_not_remove_registry(registry: Registry) -> Reason | None:
    """Return why a registry cannot be removed now."""
    if (reason := _why_managed(registry)) is not None:
        return reason
    places = [f"{row.team.slug}/{row.slug}" for row in registry.environments.select_related("team")[:4]]
    if places:
        more = " and more" if places[3:] else ""
        return Reason(f"Environments promote to it: {', '.join(places[:3])}{more}.", Conflict)
    targets = registry.repositories.filter(environment__isnull=False).count()
    if targets:
        return Reason(
            f"Promotions filled {targets} of its repositories. Only an unused registry can be removed.", Conflict
        )
    return None


def test_registry(registry_id: int, *, actor: User) -> Probe:
    """Ask a registry whether it is one and takes our credentials. Changes nothing; makes requests.

    Raises NotPermitted, NotFound, RegistryRefused when the stored credentials cannot be decrypted.
    """
    registry = registry_for(actor, registry_id)
    refuse_if(_why_managed(registry))
    return probe_registry(registry)


def _why_managed(registry: Registry) -> Reason | None:
    if registry.is_managed:
        return Reason("The managed registry is set up by settings. See REGISTRY_URL and REGISTRY_PUBLIC_URL.", Conflict)
    return None


def _lock(actor: User, registry_id: int, revision: int | None) -> Registry:
    registry = registries_for(actor).select_for_update().filter(pk=registry_id).first()
    if registry is None:
        raise NotFound("Registry not found.")
    if revision is not None and revision != registry.revision:
        raise StaleVersion(_STALE)
    return registry


def _address(text: str, *, without_tls: bool) -> str:
    """Return an address as `https://host[:port]`, or `http://` with `without_tls`; raises Malformed."""
    given = text.strip().rstrip("/")
    if "://" not in given:
        given = f"{'http' if without_tls else 'https'}://{given}"
    try:
        url = parse_outbound_url(given)
    except ForbiddenDestination:
        raise Malformed("Enter an address such as https://harbor.example.com or harbor.example.com:8443.") from None
    if url.path not in {"", "/"} or url.query:
        raise Malformed("The address has no path. What follows the host belongs into the prefix of the environment.")
    if (url.scheme == "http") != without_tls:
        raise Malformed("An address that begins http:// goes without TLS: allow that, or use https://.")
    scheme, host, port = origin(url)
    shown = f"[{host}]" if ":" in host else host
    address = f"{scheme}://{shown}" + ("" if port == (443 if scheme == "https" else 80) else f":{port}")
    if len(address) > 255:
        raise Malformed("The address has at most 255 characters.")
    managed = {settings.REGISTRY_URL, settings.REGISTRY_PUBLIC_URL}
    if (host, port) in {origin(httpx.URL(each))[1:] for each in managed}:
        raise Conflict("This is the address of the managed registry. Promotions go there without another entry.")
    return address


def _both(address: str) -> list[str]:
    rest = address.partition("://")[2]
    return [f"https://{rest}", f"http://{rest}"]


def _check(name: str, username: str, password: str, ca_certificate: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > 60 or name == MANAGED_NAME:
        raise Malformed("The name has lower-case letters, digits and single hyphens, at most 60, and is not “managed”.")
    if bool(username) != bool(password):
        raise Malformed("Enter a user name and a password, or neither.")
    if len(username) > 255 or ":" in username or not username.isprintable():
        raise Malformed("The user name has at most 255 characters, without a colon.")
    if len(password) > PASSWORD_MAX or "\0" in password:
        raise Malformed(f"The password has at most {PASSWORD_MAX} characters.")
    if not ca_certificate.strip():
        return
    if len(ca_certificate) > CERTIFICATE_MAX or "PRIVATE KEY" in ca_certificate:
        raise Malformed("Enter only certificates in PEM, without a private key, at most 64 KiB.")
    try:
        x509.load_pem_x509_certificates(ca_certificate.encode())
    except ValueError:
        raise Malformed("This is no certificate in PEM. It begins with -----BEGIN CERTIFICATE-----.") from None


def _plain(pem: str) -> str:
    """Return certificates with the line ends of the API: forms send others, which are no change."""
    return pem.strip().replace("\r\n", "\n")


def _record(action: Action, registry: Registry, actor: User, *, is_password: bool, is_certificate: bool) -> None:
    details = RegistryDetails(registry.name, registry.endpoint, registry.username, is_password, is_certificate)
    audit.record(action, actor=actor, subject=registry, details=details)
