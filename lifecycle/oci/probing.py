"""Ask an address whether it is a registry that takes our credentials, and say what is wrong if not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lifecycle.core.errors import LifecycleError, RegistryUnavailable
from lifecycle.core.http import Answer, ForbiddenDestination, HttpClient, NameUnknown, Unreachable
from lifecycle.oci.authorization import Challenged, parse_challenges
from lifecycle.oci.client import CredentialsRefused
from lifecycle.oci.constants import ERROR_MAX_BYTES

_DEADLINE_S: Final = 15.0  # a person waits for it
_VERSION_HEADER: Final = "docker-distribution-api-version"


class Problem(StrEnum):
    """What a probe found wrong."""

    NONE = ""
    NAME = "name_unknown"  # no address for the host name
    FORBIDDEN = "destination_forbidden"  # an address inside our network that OUTBOUND_ALLOW does not name
    TLS = "tls"  # the certificate is not valid for us, or no TLS is spoken there
    UNREACHABLE = "unreachable"
    UNAVAILABLE = "unavailable"  # it answers 5xx or 429
    CREDENTIALS = "credentials_refused"
    NOT_A_REGISTRY = "not_a_registry"
    REFUSED = "refused"  # anything else, such as a token server on another host


@dataclass(frozen=True, slots=True)
class Probe:
    """The result: `problem` is empty when all is well, `text` says it in a sentence."""

    problem: Problem
    text: str

    @property
    def is_ok(self) -> bool:
        """Whether it is a registry that takes our credentials."""
        return not self.problem


def probe(endpoint: str, *, http: HttpClient, username: str, password: str) -> Probe:
    """Ask for `/v2/` at `endpoint`, with the credentials if it wants some. Does not raise for what it finds."""
    try:
        return _ask(endpoint, http, username, password)
    except LifecycleError as error:
        return _found_by(error)


def _found_by(error: LifecycleError) -> Probe:
    if (why := _tls_problem(error)) is not None:
        return Probe(Problem.TLS, why)
    for kind, problem, text in (
        (
            ForbiddenDestination,
            Problem.FORBIDDEN,
            "It is inside our network. See OUTBOUND_ALLOW in the settings.",
        ),
        (NameUnknown, Problem.NAME, "The host name has no address. Check how it is written."),
        (Unreachable, Problem.UNREACHABLE, f"Nothing answers there. {error.message}"),
        (CredentialsRefused, Problem.CREDENTIALS, f"{error.message} Check the user name and the password."),
        (RegistryUnavailable, Problem.UNAVAILABLE, error.message),
    ):
        if isinstance(error, kind):
            return Probe(problem, text)
    return Probe(Problem.REFUSED, error.message)


def _ask(endpoint: str, http: HttpClient, username: str, password: str) -> Probe:
    authorizer = Challenged(http, endpoint, username, password)
    answer = _get(http, endpoint, None)
    is_challenged = answer.status == 401
    if is_challenged:
        if not _is_registry_challenge(answer):
            return Probe(Problem.NOT_A_REGISTRY, "It asks for a sign-in that is not the one of a registry.")
        header = authorizer.answer_challenge(answer.headers, ())
        if header is not None:
            answer = _get(http, endpoint, header)
    if answer.status == 200 and _looks_like_registry(answer):
        return Probe(Problem.NONE, _welcome(is_challenged=is_challenged, has_credentials=bool(username)))
    if answer.status == 401 and not username:
        return Probe(Problem.CREDENTIALS, "It is a registry, and wants a user name and a password.")
    if answer.status == 401:
        return Probe(Problem.CREDENTIALS, "The registry refused the credentials. Check the user name and the password.")
    if answer.status == 429 or answer.status >= 500:
        return Probe(Problem.UNAVAILABLE, f"The registry answered {answer.status}. Try again later.")
    return Probe(Problem.NOT_A_REGISTRY, f"It is no registry: /v2/ answered {answer.status}.")


def _welcome(*, is_challenged: bool, has_credentials: bool) -> str:
    if not is_challenged:
        return "It is a registry, and asks for no credentials here."
    if not has_credentials:
        return "It is a registry, and lets us in without credentials. It may not let us push."
    return "It is a registry, and takes the credentials."


def _get(http: HttpClient, endpoint: str, authorization: str | None) -> Answer:
    headers = {"Authorization": authorization} if authorization else {}
    return http.request(
        "GET", f"{endpoint}/v2/", headers=headers, max_bytes=ERROR_MAX_BYTES, deadline_s=_DEADLINE_S, retry=False
    )


def _is_registry_challenge(answer: Answer) -> bool:
    challenges = parse_challenges(answer.headers.get_list("www-authenticate"))
    return any(
        each.scheme == "basic" or (each.scheme == "bearer" and "realm" in each.parameters) for each in challenges
    )


def _looks_like_registry(answer: Answer) -> bool:
    """A web page that answers 200 to everything is no registry. The version header is optional in the OCI standard."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return _VERSION_HEADER in answer.headers or kind.endswith("json") or not answer.body


def _tls_problem(error: Exception) -> str | None:
    """Return what is wrong with TLS, when that is the cause of `error`."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The certificate is not trusted: {cause.verify_message}. Add the certificate of its authority."
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "reason", None) or "the handshake failed"
            return f"No TLS connection: {reason}. Without TLS, the address begins http://."
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
