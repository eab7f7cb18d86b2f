"""What can go wrong, as the user of any face hears it: one class per answer, one stable code per cause."""

from __future__ import annotations

from typing import Any, ClassVar


class LifecycleError(Exception):
    """An expected failure with a stable `code`, an HTTP status and a sentence that says what to do.

    Every face (page, API, command) turns it into its own answer in one place; a worker or an import notes it at the
    job or row that it ends, and goes on.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 400

    def __init__(self, message: str, *, code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.error_code = code or self.code


class NotFound(LifecycleError):
    """Absent, or hidden from the one who asks: one answer for both."""

    code = "not_found"
    http_status = 404


class NotPermitted(LifecycleError):
    """The actor sees the object but may not do this to it; the message says why, and often who can change that."""

    code = "not_permitted"
    http_status = 403


class Conflict(LifecycleError):
    """Somebody else was first, or a unique thing exists already."""

    code = "conflict"
    http_status = 409


class IllegalTransition(Conflict):
    """The state machine has no such move from the present state."""

    code = "illegal_transition"


class TooManyAttempts(LifecycleError):
    """The budget of wrong credentials is spent; says nothing about the one that came with this request."""

    code = "too_many_attempts"
    http_status = 429


class PolicyBlocked(LifecycleError):
    """A gate says no; `details["reasons"]` lists why, one sentence each."""

    code = "policy_blocked"
    http_status = 422


class Malformed(LifecycleError):
    """Input from outside that does not follow its specification."""

    code = "malformed"
    http_status = 400


class MalformedDigest(Malformed):
    code = "malformed_digest"


class MalformedReference(Malformed):
    code = "malformed_reference"


class MalformedPurl(Malformed):
    code = "malformed_purl"


class MalformedManifest(Malformed):
    code = "malformed_manifest"


class MalformedIdempotencyKey(Malformed):
    """An Idempotency-Key that is none."""

    code = "malformed_idempotency_key"


class IdempotencyKeyInUse(Conflict):
    """The first request with this key still runs: ask again in a moment."""

    code = "idempotency_key_in_use"


class IdempotencyKeyReused(LifecycleError):
    """The key came with another request: a new request needs a new key."""

    code = "idempotency_key_reused"
    http_status = 422


class LimitExceeded(Malformed):
    """Larger, deeper or more than we accept; the message names the limit."""

    code = "limit_exceeded"
    http_status = 413


class UpstreamError(LifecycleError):
    """A system we call did not do what we asked."""

    code = "upstream_error"
    http_status = 502


class RegistryUnavailable(UpstreamError):
    """The registry did not answer, or answered that it cannot now: worth a retry."""

    code = "registry_unavailable"


class RegistryRefused(UpstreamError):
    """The registry answered and said no: a retry changes nothing."""

    code = "registry_refused"


class LeaseLost(LifecycleError):
    """Another worker holds this job now; whatever this one still wanted to write is void."""

    code = "lease_lost"
    http_status = 409
