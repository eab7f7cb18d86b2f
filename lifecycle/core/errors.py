"""Expected errors of pages, API and commands: one class per kind of response, one stable code per cause."""

from __future__ import annotations

from typing import Any, ClassVar


class LifecycleError(Exception):
    """An expected error with a stable `code`, an HTTP status and a message that says what to do.

    Pages, API and commands each turn it into a response in one place. A worker or an import stores it with the failed
    job or row and continues.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 400

    def __init__(self, message: str, *, code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.error_code = code or self.code


class NotFound(LifecycleError):
    """The object does not exist, or the user has no access. The response is the same for both."""

    code = "not_found"
    http_status = 404


class NotPermitted(LifecycleError):
    """The actor can see the object but cannot do this. The message gives the reason and often who can help."""

    code = "not_permitted"
    http_status = 403


class WrongPassword(NotPermitted):
    """The password that an act asks for again is wrong. Nothing was changed."""

    code = "wrong_password"


class ConfirmationRequired(NotPermitted):
    """The person must prove again who they are. Pages lead to the form, and back with what was typed."""

    code = "confirmation_required"


class StepUpRequired(ConfirmationRequired):
    """The act needs a second factor within the last minutes. A token never has one: do it in the browser."""

    code = "step_up_required"


class Conflict(LifecycleError):
    """Another user was faster, or a unique object already exists."""

    code = "conflict"
    http_status = 409


class IllegalTransition(Conflict):
    """The state machine does not allow this move from the current state."""

    code = "illegal_transition"


class StaleVersion(LifecycleError):
    """The object changed since the version that the request names. Load it again and repeat the change."""

    code = "stale_version"
    http_status = 412


class VersionRequired(LifecycleError):
    """The request must name the version that it changes, in the header If-Match."""

    code = "version_required"
    http_status = 428


class TooManyAttempts(LifecycleError):
    """The limit of wrong credentials is reached. The response does not show whether the present one is right."""

    code = "too_many_attempts"
    http_status = 429


class PolicyBlocked(LifecycleError):
    """The policy blocks this. `details["reasons"]` lists the reasons, one sentence each."""

    code = "policy_blocked"
    http_status = 422


class Malformed(LifecycleError):
    """Input from outside does not follow its specification."""

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
    """The Idempotency-Key header is malformed."""

    code = "malformed_idempotency_key"


class IdempotencyKeyInUse(Conflict):
    """The first request with this key is still running. Try again in a second."""

    code = "idempotency_key_in_use"


class IdempotencyKeyReused(LifecycleError):
    """The key was used with another request. A new request needs a new key."""

    code = "idempotency_key_reused"
    http_status = 422


class LimitExceeded(Malformed):
    """The input exceeds a limit. The message names the limit."""

    code = "limit_exceeded"
    http_status = 413


class UpstreamError(LifecycleError):
    """A system that we call failed or rejected the request."""

    code = "upstream_error"
    http_status = 502


class RegistryUnavailable(UpstreamError):
    """The registry did not respond or is temporarily unavailable. A retry can help."""

    code = "registry_unavailable"


class RegistryRefused(UpstreamError):
    """The registry rejected the request. A retry does not help."""

    code = "registry_refused"


class DiskFull(LifecycleError):
    """The disk for temporary files is full. A retry can help when there is free space again."""

    code = "disk_full"
    http_status = 507


class LeaseLost(LifecycleError):
    """Another worker has taken over this job. The writes of the first worker are discarded."""

    code = "lease_lost"
    http_status = 409
