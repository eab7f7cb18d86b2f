"""The job kinds of this package: send one message, and tell people about a quarantine."""

from __future__ import annotations

from typing import Final

from lifecycle.jobs.kinds import Kind, register

NOTIFY: Final = register(Kind("notify", queue="notify", label="Send message", is_cancellable=True))
# The owners of all images that it covers are told: too many for the transaction of whoever quarantines.
TELL_QUARANTINE: Final = register(
    Kind("quarantine", queue="notify", label="Tell about quarantine", is_cancellable=True, is_retried_forever=True)
)
