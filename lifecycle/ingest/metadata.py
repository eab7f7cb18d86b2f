"""Metadata of one's own: typed keys and values on a repository, or on a digest in a repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import urlsplit

from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import MetadataChanged
from lifecycle.authority.access import image_in, lock_repository
from lifecycle.core.errors import Conflict, Malformed, NotFound
from lifecycle.registry.models import Image, Metadata, Repository
from lifecycle.registry.queries import metadata_of

ENTRIES_MAX: Final = 100  # of one repository or one digest
VALUE_MAX: Final = 1000  # characters
_KEY: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,98}[A-Za-z0-9])?")
_BOOLEANS: Final[Mapping[str, str]] = {
    "true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false",
}  # fmt: skip


@transaction.atomic
def set_metadata(
    repository_id: int, key: str, value: str, *, actor: User, kind: str = Metadata.Kind.TEXT, digest: str = ""
) -> Metadata:
    """Set one key of a repository, or with `digest` of that image in the repository. An equal value changes nothing.

    Raises NotFound, NotPermitted without image.amend, Malformed when the value is not of the kind, or Conflict when
    there are already ENTRIES_MAX keys.
    """
    repository = lock_repository(actor, repository_id, Verb.IMAGE_AMEND)
    image = image_in(repository, digest).image if digest else None
    if not _KEY.fullmatch(key):
        raise Malformed(
            "Enter a key of up to 100 letters, digits and . _ / - that begins and ends with a letter or digit."
        )
    text = parse_value(kind, value)
    rows = Metadata.objects.filter(repository=repository, image=image)
    row = rows.select_for_update().filter(key=key).first()
    if row is None and rows.count() >= ENTRIES_MAX:
        raise Conflict(f"There are already {ENTRIES_MAX} keys. Remove one first.")
    before = row.value if row is not None else ""
    if row is None:
        row = Metadata(repository=repository, image=image, key=key)
    elif (row.kind, row.value) == (kind, text):
        return row
    row.kind, row.value, row.changed_by = kind, text, actor
    row.save()
    details = MetadataChanged(key=key, kind=kind, before=before, after=text)
    _record(Action.METADATA_SET, repository, image, actor, details=details)
    return row


@transaction.atomic
def remove_metadata(repository_id: int, key: str, *, actor: User, digest: str = "") -> None:
    """Remove one key. Raises NotFound, also for an absent key, or NotPermitted."""
    repository = lock_repository(actor, repository_id, Verb.IMAGE_AMEND)
    image = image_in(repository, digest).image if digest else None
    row = Metadata.objects.select_for_update().filter(repository=repository, image=image, key=key).first()
    if row is None:
        raise NotFound(f"No metadata with the key {key[:100]}.")
    details = MetadataChanged(key=key, kind=row.kind, before=row.value, after="")
    row.delete()
    _record(Action.METADATA_REMOVED, repository, image, actor, details=details)


def parse_value(kind: str, value: str) -> str:
    """Return `value` as it is stored for its kind; raises Malformed."""
    text = value.strip()
    if kind not in Metadata.Kind.values:
        raise Malformed(f"Unknown type. Choose one of: {', '.join(Metadata.Kind.values)}.")
    if not text or len(text) > VALUE_MAX or "\0" in text:
        raise Malformed(f"Enter a value of up to {VALUE_MAX} characters.")
    parsers = {"number": _number, "boolean": _boolean, "date": _date, "link": _link}
    return parsers[kind](text) if kind in parsers else text


def _number(text: str) -> str:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or len(text) > 40 or abs(number.adjusted()) > 30:
        raise Malformed("Enter a number, for example 42 or 3.14.")
    return f"{number.normalize():f}"


def _boolean(text: str) -> str:
    if text.lower() not in _BOOLEANS:
        raise Malformed("Enter true or false.")
    return _BOOLEANS[text.lower()]


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise Malformed("Enter a date as YYYY-MM-DD.") from None


def _link(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_link = parts.scheme in {"http", "https"} and bool(parts.hostname) and not re.search(r"\s", text)
    except ValueError:
        is_link = False
    if not is_link:
        raise Malformed("Enter an address that begins with https:// or http://.")
    return text


def as_record(repository: Repository, image: Image) -> dict[str, dict[str, str]]:
    """Return the metadata of a repository and of an image in it, for the record of a promotion; {} without any."""
    record: dict[str, dict[str, str]] = {}
    for row in metadata_of(repository, image):
        record.setdefault("repository" if row.image_id is None else "image", {})[row.key] = row.value
    return record


def _record(
    action: Action, repository: Repository, image: Image | None, actor: User, *, details: MetadataChanged
) -> None:
    audit.record(action, actor=actor, subject=image or repository, repository=repository, image=image, details=details)
