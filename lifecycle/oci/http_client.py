"""The distribution API over HTTP, for CNCF Distribution 2.8 and 3, Harbor, zot, Quay and Docker Hub."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn
from urllib.parse import quote, urlsplit

import httpx

from lifecycle.core.errors import (
    LimitExceeded,
    Malformed,
    MalformedDigest,
    MalformedManifest,
    RegistryRefused,
    RegistryUnavailable,
    UpstreamError,
)
from lifecycle.core.http import (
    RETRIED_STATUS,
    Answer,
    Body,
    ForbiddenDestination,
    HttpClient,
    StreamedAnswer,
    Unreachable,
    origin,
    parse_outbound_url,
)
from lifecycle.core.types import Digest, parse_repository_name, parse_tag
from lifecycle.oci.authorization import Authorizer
from lifecycle.oci.client import (
    AccessDenied,
    BlobUnknown,
    CredentialsRefused,
    DigestMismatch,
    ManifestUnknown,
    QuotaExceeded,
)
from lifecycle.oci.constants import (
    ACCEPT_MANIFESTS,
    BLOB_MAX_BYTES,
    ERROR_MAX_BYTES,
    LISTING_MAX_BYTES,
    MANIFEST_MAX_BYTES,
    MIB,
    PAGE_SIZE,
    PAGES_MAX,
    REFERRERS_MAX,
    MediaType,
)
from lifecycle.oci.manifests import load_json, parse_links
from lifecycle.oci.scopes import CATALOG_SCOPE, Scope, repository_scope
from lifecycle.oci.types import Descriptor, ManifestContent

_BLOB_REDIRECTS: Final = 3  # a blob can be in an object store
_BLOB_TRIES: Final = 3
_SLOWEST_BYTES_PER_S: Final = 1 * MIB
_CHUNK: Final = 256 * 1024
_LENGTH: Final = re.compile(r"[0-9]{1,18}")  # the header of a registry can contain anything


class HttpRegistryClient:
    """One registry at `endpoint` (`https://host[:port]`). RegistryClient documents the methods."""

    def __init__(self, endpoint: str, *, http: HttpClient, authorizer: Authorizer) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._origin = origin(parse_outbound_url(endpoint))
        self._http = http
        self._authorizer = authorizer

    def check(self) -> None:
        answer = self._call("GET", "/v2/", ())
        if answer.status >= 500:
            _refuse(answer)

    def resolve(self, repository: str, reference: str) -> Descriptor | None:
        scopes = (repository_scope(repository, "pull"),)
        path = _manifest_path(repository, reference)
        answer = self._call("HEAD", path, scopes, headers={"Accept": ACCEPT_MANIFESTS}, max_bytes=MANIFEST_MAX_BYTES)
        if answer.status == 404:
            return None
        if answer.status != 200:
            _refuse(answer)
        media_type, length = _media_type(answer.headers), answer.headers.get("content-length", "")
        try:
            digest = Digest.parse(answer.headers.get("docker-content-digest", ""))
        except MalformedDigest:
            digest = None  # optional until distribution-spec 1.2; without it, read the bytes
        if digest is None or not _LENGTH.fullmatch(length) or not media_type:
            content = self.get_manifest(repository, reference)
            return Descriptor(content.media_type, content.digest, len(content.content))
        return Descriptor(media_type, digest, int(length))

    def get_manifest(self, repository: str, reference: str) -> ManifestContent:
        content = self._get_manifest(repository, reference, {})
        if content is None:
            raise RegistryRefused("The registry answered 304 to an unconditional request.")
        return content

    def get_manifest_if_changed(self, repository: str, reference: str, known: Digest) -> ManifestContent | None:
        content = self._get_manifest(repository, reference, {"If-None-Match": f'"{known}"'})
        return None if content is not None and content.digest == known else content

    def _get_manifest(self, repository: str, reference: str, condition: Mapping[str, str]) -> ManifestContent | None:
        answer = self._call(
            "GET",
            _manifest_path(repository, reference),
            (repository_scope(repository, "pull"),),
            headers={"Accept": ACCEPT_MANIFESTS, **condition},
            max_bytes=MANIFEST_MAX_BYTES,
        )
        if answer.status == 304:
            return None
        if answer.status == 404:
            raise ManifestUnknown(
                "The registry does not have this manifest.", repository=repository, reference=reference
            )
        if answer.status != 200:
            _refuse(answer)
        named = Digest.parse(reference) if ":" in reference else None
        digest = _digest_of(answer.body, named.algorithm if named else "sha256")
        if named is not None and digest != named:
            raise DigestMismatch("The registry served content that does not match its digest.", expected=str(named))
        reported = answer.headers.get("docker-content-digest", "")
        if named is None and reported.startswith("sha256:") and reported != digest.text:
            raise DigestMismatch("The digest that the registry reports is not correct.", expected=reported[:150])
        return ManifestContent(digest, _media_type(answer.headers), answer.body)

    def get_blob(self, repository: str, digest: Digest, *, max_bytes: int) -> bytes:
        with self._blob(repository, digest, max_bytes, deadline_s=60.0) as streamed:
            content = b"".join(streamed.chunks())
        if _digest_of(content, digest.algorithm) != digest:
            raise DigestMismatch("The registry served content that does not match its digest.", expected=str(digest))
        return content

    def fetch_blob(
        self,
        repository: str,
        digest: Digest,
        into: BinaryIO,
        *,
        size_bytes: int | None = None,
        max_bytes: int = BLOB_MAX_BYTES,
    ) -> int:
        if size_bytes is not None and size_bytes > max_bytes:
            raise LimitExceeded(f"The blob is larger than {max_bytes} bytes.", limit=max_bytes)
        limit = max_bytes if size_bytes is None else size_bytes
        start = into.tell()
        for attempt in range(1, _BLOB_TRIES + 1):
            into.seek(start)
            into.truncate()
            hasher, length = hashlib.new(digest.algorithm), 0
            try:
                deadline_s = 60.0 + limit / _SLOWEST_BYTES_PER_S
                with self._blob(repository, digest, limit, deadline_s=deadline_s) as streamed:
                    for chunk in streamed.chunks():
                        hasher.update(chunk)
                        length += len(chunk)
                        into.write(chunk)
                if size_bytes is not None and length < size_bytes:
                    if hasher.hexdigest() == digest.encoded:  # the complete blob, so a retry does not help
                        raise RegistryRefused("The blob is smaller than its manifest declares.", digest=str(digest))
                    raise RegistryUnavailable("The download of the blob ended too early.", digest=str(digest))
            except RegistryUnavailable:
                if attempt == _BLOB_TRIES:
                    raise
                continue
            if hasher.hexdigest() != digest.encoded:
                raise DigestMismatch(
                    "The registry served content that does not match its digest.", expected=str(digest)
                )
            return length
        raise AssertionError("unreachable")

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        answer = self._call(
            "HEAD",
            _blob_path(repository, digest),
            (repository_scope(repository, "pull"),),
            redirects=_BLOB_REDIRECTS,
        )
        if answer.status == 404:
            return None
        if answer.status != 200:
            _refuse(answer)
        length = answer.headers.get("content-length", "")
        return int(length) if _LENGTH.fullmatch(length) else 0

    def mount_blob(self, repository: str, digest: Digest, *, source_repository: str) -> bool:
        scopes = (repository_scope(repository, "pull", "push"), repository_scope(source_repository, "pull"))
        path = f"/v2/{parse_repository_name(repository)}/blobs/uploads/?mount={quote(str(digest), safe=':')}"
        answer = self._call("POST", f"{path}&from={quote(parse_repository_name(source_repository))}", scopes)
        if answer.status == 201:
            return True
        if answer.status == 202:  # not mounted; the registry started an upload that we do not use
            self._cancel_upload(repository, answer.headers.get("location", ""))
            return False
        if answer.status not in {404, 405}:
            _refuse(answer)
        return False

    def upload_blob(self, repository: str, digest: Digest, content: bytes | Path) -> None:
        if self.blob_size(repository, digest) is not None:
            return
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        scopes = (repository_scope(repository, "pull", "push"),)
        for attempt in range(1, _BLOB_TRIES + 1):
            begun = self._call("POST", f"/v2/{parse_repository_name(repository)}/blobs/uploads/", scopes, content=b"")
            if begun.status != 202:
                _refuse(begun)
            location = begun.headers.get("location", "")
            try:
                url = self._own_url(location)
                answer = self._call(
                    "PUT",
                    f"{url}{'&' if '?' in url else '?'}digest={quote(str(digest), safe=':')}",
                    scopes,
                    # With a length, because some registries refuse a chunked PUT.
                    headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
                    content=content if isinstance(content, bytes) else _reader(content),
                    deadline_s=60.0 + size / _SLOWEST_BYTES_PER_S,
                    retry=False,  # after a partial upload, the body cannot be sent again to the same session
                )
            except RegistryUnavailable:
                self._cancel_upload(repository, location)
                if attempt == _BLOB_TRIES:
                    raise
                continue
            if answer.status == 201:
                return
            self._cancel_upload(repository, location)
            _refuse(answer)
        raise AssertionError("unreachable")

    def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> Digest:
        answer = self._call(
            "PUT",
            _manifest_path(repository, reference),
            (repository_scope(repository, "pull", "push"),),
            headers={"Content-Type": media_type},
            content=content,
        )
        if answer.status != 201:
            _refuse(answer)
        expected = _digest_of(content, "sha256")
        reported = answer.headers.get("docker-content-digest", expected.text)
        if reported.startswith("sha256:") and reported != expected.text:
            raise DigestMismatch("The registry stored different content from what we sent.", expected=expected.text)
        return expected

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        path = _manifest_path(repository, str(digest))
        answer = self._call("DELETE", path, (repository_scope(repository, "delete"),))
        if answer.status == 404:
            return False
        if answer.status != 202:
            _refuse(answer)
        return True

    def delete_tag(self, repository: str, tag: str) -> bool:
        if self.resolve(repository, tag) is None:
            return False
        answer = self._call("DELETE", _manifest_path(repository, tag), (repository_scope(repository, "delete"),))
        if answer.status == 404:
            return False
        if answer.status in {400, 405}:
            self._delete_tag_with_manifest(repository, tag)
        elif answer.status != 202:
            _refuse(answer)
        return True

    def _delete_tag_with_manifest(self, repository: str, tag: str) -> None:
        """Delete a tag in a registry that deletes by digest only, as Distribution 2.8 does.

        The tag is moved to a manifest of its own. Deleting that manifest deletes every tag that points to it: this one.
        """
        empty = b"{}"
        config = {"mediaType": MediaType.EMPTY, "digest": _digest_of(empty, "sha256").text, "size": len(empty)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MediaType.OCI_MANIFEST,
            "config": config,
            "layers": [],
            "annotations": {"io.gravingdock.deletes": f"{tag} {uuid.uuid4()}"},
        }
        self.upload_blob(repository, _digest_of(empty, "sha256"), empty)
        digest = self.put_manifest(repository, tag, json.dumps(manifest).encode(), MediaType.OCI_MANIFEST)
        self.delete_manifest(repository, digest)

    def tags(self, repository: str) -> list[str]:
        scopes = (repository_scope(repository, "pull"),)
        names: set[str] = set()
        for page in self._pages(f"/v2/{parse_repository_name(repository)}/tags/list?n={PAGE_SIZE}", scopes):
            names.update(text for text in _strings(page, "tags") if _is_tag(text))
        return sorted(names)

    def repositories(self) -> Iterator[str]:
        for page in self._pages(f"/v2/_catalog?n={PAGE_SIZE}", (CATALOG_SCOPE,)):
            for name in _strings(page, "repositories"):
                with suppress(Malformed):
                    yield parse_repository_name(name)

    def referrers(self, repository: str, digest: Digest) -> list[Descriptor]:
        scopes = (repository_scope(repository, "pull"),)
        path: str | None = f"/v2/{parse_repository_name(repository)}/referrers/{quote(str(digest), safe=':')}"
        entries: dict[str, Descriptor] = {}
        for page_number in range(PAGES_MAX):
            if path is None:
                return list(entries.values())
            headers = {"Accept": MediaType.OCI_INDEX}
            answer = self._call("GET", path, scopes, headers=headers, max_bytes=MANIFEST_MAX_BYTES)
            if answer.status != 200 or _media_type(answer.headers) != MediaType.OCI_INDEX:
                if page_number == 0 and answer.status in {200, 400, 404, 405, 406}:
                    return self._fallback_referrers(repository, digest)
                _refuse(answer)
            content = ManifestContent(_digest_of(answer.body, "sha256"), MediaType.OCI_INDEX, answer.body)
            links = parse_links(content)
            for entry in (*links.manifests, *links.blobs):
                entries.setdefault(str(entry.digest), entry)
            if len(entries) > REFERRERS_MAX:
                raise LimitExceeded(f"The image has more than {REFERRERS_MAX} referrers.", limit=REFERRERS_MAX)
            path = self._next_page(answer)
        return list(entries.values())

    def _fallback_referrers(self, repository: str, digest: Digest) -> list[Descriptor]:
        try:
            content = self.get_manifest(repository, fallback_tag(digest))
        except ManifestUnknown:
            return []
        if not content.is_index:
            return []
        links = parse_links(content)
        return list({str(entry.digest): entry for entry in (*links.manifests, *links.blobs)}.values())

    @contextmanager
    def _blob(self, repository: str, digest: Digest, max_bytes: int, *, deadline_s: float) -> Iterator[StreamedAnswer]:
        scopes = (repository_scope(repository, "pull"),)
        header = self._authorizer.header(scopes)
        url = self.endpoint + _blob_path(repository, digest)
        with _translated():
            for is_second in (False, True):
                with self._http.stream(
                    "GET",
                    url,
                    headers={"Authorization": header} if header else {},
                    max_bytes=max_bytes,
                    deadline_s=deadline_s,
                    redirects=_BLOB_REDIRECTS,
                ) as streamed:
                    if streamed.status == 401 and not is_second:
                        header = self._authorizer.answer_challenge(streamed.headers, scopes)
                        if header is not None:
                            continue
                    if streamed.status == 404:
                        raise BlobUnknown("The registry does not have this blob.", digest=str(digest))
                    if streamed.status != 200:
                        _refuse(Answer(streamed.status, streamed.headers, b"", streamed.url))
                    yield streamed
                    return

    def _call(
        self,
        method: str,
        path: str,
        scopes: Sequence[Scope],
        *,
        headers: Mapping[str, str] | None = None,
        content: Body | None = None,
        max_bytes: int = ERROR_MAX_BYTES,
        deadline_s: float = 60.0,
        redirects: int = 0,
        retry: bool = True,
    ) -> Answer:
        url = path if path.startswith("http") else self.endpoint + path
        authorization = self._authorizer.header(scopes)
        answer: Answer
        with _translated():
            for is_second in (False, True):
                sent = dict(headers or {})
                if authorization:
                    sent["Authorization"] = authorization
                answer = self._http.request(
                    method,
                    url,
                    headers=sent,
                    content=content,
                    max_bytes=max_bytes,
                    deadline_s=deadline_s,
                    redirects=redirects,
                    retry=retry,
                )
                if answer.status != 401 or is_second:
                    break
                authorization = self._authorizer.answer_challenge(answer.headers, scopes)
                if authorization is None:
                    break
        if answer.status in RETRIED_STATUS:
            raise RegistryUnavailable(
                f"The registry answered {answer.status} for {_object_at(answer.url)}.", status=answer.status
            )
        return answer

    def _pages(self, path: str, scopes: Sequence[Scope]) -> Iterator[Any]:
        following: str | None = path
        for _ in range(PAGES_MAX):
            if following is None:
                return
            answer = self._call("GET", following, scopes, max_bytes=LISTING_MAX_BYTES)
            if answer.status == 404:
                return
            if answer.status != 200:
                _refuse(answer)
            try:
                yield load_json(answer.body, "listing")
            except MalformedManifest as error:
                raise RegistryRefused("The list from the registry is not valid JSON.") from error
            following = self._next_page(answer)
        raise LimitExceeded(f"The list from the registry has more than {PAGES_MAX} pages.", limit=PAGES_MAX)

    def _next_page(self, answer: Answer) -> str | None:
        """Return the URL in `Link: <...>; rel="next"`, if any; raises RegistryRefused when it is on another host."""
        link = answer.headers.get("link", "")
        if 'rel="next"' not in link and "rel=next" not in link:
            return None
        target = link.partition("<")[2].partition(">")[0]
        return self._own_url(target) if target else None

    def _own_url(self, location: str) -> str:
        """Return `location` as an absolute URL; raises RegistryRefused for another host, as it would get our token."""
        with _translated():
            url = parse_outbound_url(str(httpx.URL(self.endpoint + "/").join(location)))
        if origin(url) != self._origin:
            raise RegistryRefused("The registry redirects to another host. Our token is not sent there.", host=url.host)
        return str(url)

    def _cancel_upload(self, repository: str, location: str) -> None:
        with suppress(RegistryRefused, RegistryUnavailable):  # the registry purges unfinished uploads itself
            scopes = (repository_scope(repository, "pull", "push"),)
            self._call("DELETE", self._own_url(location), scopes, retry=False)


def fallback_tag(digest: Digest) -> str:
    """Return the tag for the referrers of `digest` in registries without the referrers API (distribution-spec)."""
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


@contextmanager
def _translated() -> Iterator[None]:
    """Turn errors of the HTTP client into RegistryUnavailable and RegistryRefused."""
    try:
        yield
    except Unreachable as error:
        raise RegistryUnavailable(f"The registry cannot be reached. {error.message}") from error
    except ForbiddenDestination as error:
        raise RegistryRefused("The registry's address is not allowed. Add it to OUTBOUND_ALLOW.") from error
    except httpx.InvalidURL as error:
        raise RegistryRefused("The registry returned an invalid URL.") from error


def _refuse(answer: Answer) -> NoReturn:
    """Raise the error for the status and the error body. The body can contain anything."""
    code, message = "", ""
    with suppress(ValueError, KeyError, IndexError, TypeError, RecursionError):
        first = json.loads(answer.body)["errors"][0]
        code, message = str(first["code"])[:60], str(first.get("message", ""))[:200]
    kind, words = _kind_of(answer.status, f"{code} {message}".lower())
    reason = f": {code} {message}".rstrip(" .") if code and kind is not RegistryUnavailable else ""
    raise kind(
        f"{words}The registry answered {answer.status} for {_object_at(answer.url)}{reason}.",
        status=answer.status,
        upstream_code=code,
    )


def _kind_of(status: int, said: str) -> tuple[type[UpstreamError], str]:
    """Return the error for a status and what the registry said in lower case, and how its message begins.

    No specification has a code for a full quota. Harbor says DENIED, with the words "quota" or "upper limit".
    """
    if status in {413, 507} or (status in {403, 412} and ("quota" in said or "upper limit" in said)):
        return QuotaExceeded, "The registry has no room left. "
    if status in RETRIED_STATUS or status >= 500:
        return RegistryUnavailable, ""
    if status == 401:
        return CredentialsRefused, "The registry refused our credentials. "
    if status == 403:
        return AccessDenied, "The registry does not allow this. "
    return RegistryRefused, ""


def _object_at(url: str) -> str:
    """Return the object that a request was for, as people write it: `shop/api:1.0` or `shop/api@sha256:...`."""
    path = urlsplit(url).path.removeprefix("/v2/")
    for kind in ("/manifests/", "/blobs/"):
        repository, _, reference = path.partition(kind)
        if reference and not reference.startswith("uploads/"):
            return f"{repository}{'@' if ':' in reference else ':'}{reference}"
        if reference:
            return f"an upload to {repository}"
    return path or "its version check"


def _media_type(headers: httpx.Headers) -> str:
    value: str = headers.get("content-type", "")
    return value.partition(";")[0].strip()[:150]


def _digest_of(content: bytes, algorithm: str) -> Digest:
    return Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")


def _manifest_path(repository: str, reference: str) -> str:
    parse_repository_name(repository)
    if ":" in reference:
        Digest.parse(reference)
    else:
        parse_tag(reference)
    return f"/v2/{repository}/manifests/{reference}"


def _blob_path(repository: str, digest: Digest) -> str:
    return f"/v2/{parse_repository_name(repository)}/blobs/{digest}"


def _reader(path: Path) -> Callable[[], Iterable[bytes]]:
    def chunks() -> Iterator[bytes]:
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                yield chunk

    return chunks


def _strings(page: Any, key: str) -> list[str]:
    entries = page.get(key) if isinstance(page, dict) else None
    return [entry for entry in entries if isinstance(entry, str)] if isinstance(entries, list) else []


def _is_tag(text: str) -> bool:
    try:
        parse_tag(text)
    except Malformed:
        return False
    return True
