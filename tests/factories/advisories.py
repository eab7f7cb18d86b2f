"""OSV records, and small exports of them on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accounts.queries import system_user
from lifecycle.advisories.services import SyncReport, sync_feed


def record(osv_id: str, name: str = "openssl", ecosystem: str = "Debian:12", **more: Any) -> dict[str, Any]:
    """Return a record that affects `name` below `fixed` (default 3.0.14-1)."""
    events = more.pop("events", None) or [{"introduced": "0"}, {"fixed": more.pop("fixed", "3.0.14-1")}]
    affected = {"package": {"ecosystem": ecosystem, "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": osv_id, "modified": "2026-01-01T00:00:00Z", "affected": [affected], **more}


class Export:
    """An OSV bulk export on disk that a test changes between two runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[str, dict[str, dict[str, Any]]] = {}

    def put(self, directory: str, *records: dict[str, Any]) -> None:
        self.folders.setdefault(directory, {}).update({item["id"]: item for item in records})
        self.write(directory)

    def drop(self, directory: str, osv_id: str) -> None:
        del self.folders[directory][osv_id]
        (self.root / directory / f"{osv_id}.json").unlink()
        self.write(directory)

    def write(self, directory: str) -> None:
        folder = self.root / directory
        folder.mkdir(parents=True, exist_ok=True)
        for osv_id, item in self.folders[directory].items():
            (folder / f"{osv_id}.json").write_text(json.dumps(item))
        lines = [f"{item['modified']},{osv_id}" for osv_id, item in self.folders[directory].items()]
        (folder / "modified_id.csv").write_text("\n".join(lines) + "\n")

    def sync(self, feed: str = "test") -> SyncReport:
        return sync_feed(str(self.root), feed_name=feed, actor=system_user())
