"""The embedded registry: CNCF Distribution, configured to use our token endpoint and to notify us of pushes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from config.embedded import keys, ports


class RegistryMissing(RuntimeError):
    """The `docker-registry` program is not installed."""


@dataclass(frozen=True, slots=True)
class RegistryServer:
    """A registry: its folder, its port, and the settings that connect it to Gravingdock."""

    folder: Path
    port: int
    public_url: str  # of Gravingdock's web process
    service: str
    issuer: str
    certificate_file: Path
    hook_secret: str
    http_secret: str

    @property
    def url(self) -> str:
        """The registry's address for clients. It uses `localhost`, as its `Location` headers do."""
        return f"http://localhost:{self.port}"

    @property
    def _configuration(self) -> Path:
        return self.folder / "config.yml"

    def prepare(self) -> None:
        """Write the configuration to a file that only its owner can read, because it contains secrets."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        endpoint = {
            "name": "gravingdock",
            "url": f"{self.public_url}/hooks/registry/managed",
            "headers": {"Authorization": [f"Bearer {self.hook_secret}"]},
            "timeout": "5s",
            # Retry failed notifications soon. The crawl would find the pushes too, but pages should not wait for it.
            "threshold": 3,
            "backoff": "1s",
            # Only send pushes and deletes of manifests. Distribution 2.8 applies `actions` only beside `mediatypes`.
            "ignore": {"mediatypes": ["application/octet-stream"], "actions": ["pull"]},
        }
        configuration = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {
                "addr": f"{ports.LOOPBACK}:{self.port}",
                "secret": self.http_secret,
                "host": self.url,
                "headers": {"X-Content-Type-Options": ["nosniff"]},
            },
            "auth": {
                "token": {
                    "realm": f"{self.public_url}/auth/token",
                    "service": self.service,
                    "issuer": self.issuer,
                    "rootcertbundle": str(self.certificate_file),
                }
            },
            "notifications": {
                "events": {"includereferences": True},
                "endpoints": [endpoint],
            },
        }
        # JSON is valid YAML and avoids quoting problems.
        keys.write_private(self._configuration, json.dumps(configuration, indent=1) + "\n")

    def command(self) -> list[str]:
        """Return the command line of the server, in the foreground; raises RegistryMissing."""
        program = shutil.which("docker-registry")
        if program is None:
            raise RegistryMissing("docker-registry is not installed. Run: make system")
        return [program, "serve", str(self._configuration)]
