"""The sealer in the test's own process: in a thread of its own, as the owner of the tables."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as live_settings
from django.db import connection

from lifecycle.sealed_log.models import Anchor
from lifecycle.sealed_log.running import Sealer


def run_as_owner(work: Callable[[], Any]) -> Any:
    """Run `work` in a thread with a connection of the owner, and return or raise what it does."""
    outcome: list[Any] = [None, None]
    owner = urlsplit(live_settings.DATABASE_OWNER_URL)

    def body() -> None:
        connection.settings_dict = {**connection.settings_dict, "USER": owner.username, "PASSWORD": owner.password}
        try:
            outcome[0] = work()
        except BaseException as error:  # noqa: BLE001 -- raised again in the test's own thread
            outcome[1] = error
        finally:
            connection.close()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(timeout=120)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


class Log:
    """The log of one test: its folder, its key, and what seals into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "audit-log"
        self.key_file = folder / "sealer" / "key.pem"
        self.has_registry = False

    def seal(self, limit: int = 10_000) -> int:
        """Seal once as the sealer process does; return how many events were sealed."""
        count: int = run_as_owner(lambda: Sealer(self.folder, self.key_file).step(limit=limit))
        if not self.has_registry:
            Anchor.objects.filter(kind="oci").delete()  # nobody answers there
        return count
