"""Reading a VEX feed from its server: the list of its files, each file that changed, and its signature."""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from lifecycle.core.errors import LimitExceeded, Malformed, UpstreamError
from lifecycle.core.http import HttpClient
from lifecycle.signatures.keys import load_public_key
from lifecycle.vex.constants import (
    DOCUMENT_MAX_BYTES,
    FEED_FETCH_S,
    FEED_FILES_MAX,
    FEED_INDEX_MAX_BYTES,
    FEED_SIGNATURE_MAX_BYTES,
)
from lifecycle.vex.types import Parsed, Product, Refused, Said

# Distribution of CSAF 2.0, 7.1.12 and 7.1.13: one path per line; or a path and the time of its last change.
INDEX: Final = "index.txt"
CHANGES: Final = "changes.csv"
_ABSENT: Final = frozenset({403, 404})  # a bucket without list permission answers 403 for absent files
_GONE: Final = 410
_UNCHANGED: Final = 304
_PATH_MAX: Final = 500
_REDIRECTS: Final = 3


class FeedUnreadable(UpstreamError):
    """The address has no list of documents, or it cannot be read."""

    code = "feed_unreadable"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a server answered for one file."""

    content: bytes | None  # None: unchanged, or gone
    is_gone: bool = False
    etag: str = ""
    modified: str = ""


def is_folder(location: str) -> bool:
    """Return whether an address names a folder with a list of documents, and not one document."""
    return location.endswith(("/", f"/{INDEX}", f"/{CHANGES}"))


def address_of(location: str, path: str) -> str:
    """Return the address of a file of a feed; `path` is "" for a feed of one document."""
    if not path:
        return location
    return f"{location[: location.rindex('/') + 1]}{quote(path, safe='/')}"


def listed_in(client: HttpClient, location: str) -> dict[str, str]:
    """Return {path: time of the last change, "" if unknown} of all documents of a folder.

    Raises FeedUnreadable, LimitExceeded for too many, and what HttpClient raises.
    """
    name = location.rpartition("/")[2]
    for wanted in (name,) if name else (CHANGES, INDEX):
        answer = client.request(
            "GET", address_of(location, wanted), max_bytes=FEED_INDEX_MAX_BYTES, deadline_s=FEED_FETCH_S,
            redirects=_REDIRECTS,
        )  # fmt: skip
        if answer.status in _ABSENT and wanted == CHANGES and not name:
            continue
        if answer.status != 200:
            raise FeedUnreadable(f"{wanted} answered {answer.status}.")
        return _parsed_list(answer.body, is_csv=wanted == CHANGES)
    raise AssertionError("unreachable")


def _parsed_list(content: bytes, *, is_csv: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    text = content.decode("utf-8-sig", "replace")
    try:
        rows = csv.reader(io.StringIO(text)) if is_csv else ([line] for line in text.splitlines())
        for row in rows:
            path = row[0].strip() if row else ""
            if not path.endswith(".json"):  # a comment, the head of a table, or a signature beside a document
                continue
            if not _is_inside(path):
                raise FeedUnreadable(f"The list names {path[:100]!r}, which is not a path below the feed.")
            found[path] = max(found.get(path, ""), row[1].strip()[:64] if len(row) > 1 else "")
            if len(found) > FEED_FILES_MAX:
                raise LimitExceeded(
                    f"The feed has more than {FEED_FILES_MAX:,} documents. Name a folder in it, or a document.",
                    limit=FEED_FILES_MAX,
                )
    except csv.Error as error:
        raise FeedUnreadable(f"The list cannot be read: {error}") from None
    if not found:
        raise FeedUnreadable("The list has no documents.")
    return found


def _is_inside(path: str) -> bool:
    """Return whether a path of a list is a plain one below its folder: the list must not name other servers."""
    is_plain = path.isprintable() and "\\" not in path and ":" not in path and len(path) <= _PATH_MAX
    return is_plain and not {"", ".", ".."} & set(path.split("/"))


def fetch(client: HttpClient, address: str, *, etag: str = "", modified: str = "") -> Fetched:
    """Return a document if it is not what these headers of an earlier answer name.

    Raises FeedUnreadable for another status, and what HttpClient raises.
    """
    headers = {name: value for name, value in (("If-None-Match", etag), ("If-Modified-Since", modified)) if value}
    answer = client.request(
        "GET", address, headers=headers, max_bytes=DOCUMENT_MAX_BYTES, deadline_s=FEED_FETCH_S, redirects=_REDIRECTS
    )
    if answer.status == _UNCHANGED and headers:
        return Fetched(None, etag=etag, modified=modified)
    if answer.status == _GONE:
        return Fetched(None, is_gone=True)
    if answer.status != 200:
        raise FeedUnreadable(f"It answered {answer.status}.")
    kept = [answer.headers.get(name, "") for name in ("etag", "last-modified")]
    # One that is too long is not kept: a part of it would never be equal.
    return Fetched(answer.body, etag=kept[0] if len(kept[0]) <= 200 else "", modified=kept[1][:100])


def check_signature(client: HttpClient, address: str, content: bytes, public_key: str) -> None:
    """Raise unless `<address>.sig` is a signature of the content by this key, as `cosign sign-blob --key` writes it.

    Raises FeedUnreadable when it is absent, SignatureRefused, and what HttpClient raises.
    """
    answer = client.request(
        "GET", f"{address}.sig", max_bytes=FEED_SIGNATURE_MAX_BYTES, deadline_s=FEED_FETCH_S, redirects=_REDIRECTS
    )
    if answer.status != 200:
        raise FeedUnreadable(f"Its signature ({address.rpartition('/')[2]}.sig) answered {answer.status}.")
    try:
        signature = base64.b64decode(answer.body.strip(), validate=True)
    except (binascii.Error, ValueError):
        signature = answer.body
    load_public_key(public_key).check(signature, content)


def limited(parsed: Parsed, speaks_for: Collection[str]) -> Parsed:
    """Return a document with only the products that its feed can speak for. A statement without any is refused."""
    if not speaks_for:
        return parsed
    kept: list[Said] = []
    refused = list(parsed.refused)
    for said in parsed.statements:
        if products := tuple(product for product in said.products if _is_allowed(product, speaks_for)):
            kept.append(replace(said, products=products))
        else:
            refused.append(Refused(said.position, "It is about nothing that this feed can speak for."))
    return replace(parsed, statements=tuple(kept), refused=tuple(refused))


def _is_allowed(product: Product, speaks_for: Collection[str]) -> bool:
    """Return whether all packages of a product, else its own package URL, begin as one of the patterns does.

    An image by digest alone could be anything.
    """
    named = product.packages or ((product.purl,) if product.purl else ())
    return bool(named) and all(any(begins(purl, pattern) for pattern in speaks_for) for purl in named)


def begins(purl: str, pattern: str) -> bool:
    """Return whether a package URL is the one of a pattern, in any version, or below it when that ends with "/"."""
    if pattern.endswith("/"):
        return purl.startswith(pattern)
    return purl == pattern or (purl.startswith(pattern) and purl[len(pattern)] in "@?#")


def checked_pattern(text: str) -> str:
    """Return a pattern: "pkg:deb/debian/openssl", or "pkg:deb/debian/" for all below. Raises Malformed."""
    found = text.strip()
    is_plain = found.isascii() and found.isprintable() and not set("@?# ") & set(found.removeprefix("pkg:"))
    if not found.startswith("pkg:") or "/" not in found or not is_plain or len(found) > 500:
        raise Malformed(
            f"{text[:100]!r}: enter the beginning of a package URL without version, such as pkg:deb/debian/openssl,"
            " or pkg:npm/@scope%2Fname as pkg:npm/%40scope/name. A / at the end means all below."
        )
    return found
