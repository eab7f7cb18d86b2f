"""The job kind of this package: send one message."""

from __future__ import annotations

from typing import Final

from lifecycle.jobs.kinds import Kind, register

NOTIFY: Final = register(Kind("notify", queue="notify", label="Send message", is_cancellable=True))
