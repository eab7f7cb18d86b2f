"""Start a builder's programs in namespaces of their own, which end with the process that started them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# The kernel kills `unshare` with its parent; `unshare` then kills the first process of the namespace, and the kernel
# the others. So no build outlives a killed worker or demonstration.
OWN: Final[Sequence[str]] = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child",
)  # fmt: skip
