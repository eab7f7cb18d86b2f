"""CNCF Distribution with our own configuration: we are its token service, and it tells us about pushes."""

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
    """One registry: where it keeps blobs, its address, and how it knows us."""

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
        """The registry's address as clients have to use it: `localhost`, since `Location` headers carry it."""
        return f"http://localhost:{self.port}"

    @property
    def _configuration(self) -> Path:
        return self.folder / "config.yml"

    def prepare(self) -> None:
        """Write the configuration, readable by its owner only (it holds secrets)."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        tell = {
            "name": "gravingdock",
            "url": f"{self.public_url}/hooks/registry/managed",
            "headers": {"Authorization": [f"Bearer {self.hook_secret}"]},
            "timeout": "5s",
            # A hint that fails is tried again soon: the crawl converges without it, but pages should not wait.
            "threshold": 3,
            "backoff": "1s",
            # With this, only pushes and deletes of manifests arrive; 2.8 heeds `actions` only beside `mediatypes`.
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
                "endpoints": [tell],
            },
        }
        # JSON is YAML, and quoting is settled.
        keys.write_private(self._configuration, json.dumps(configuration, indent=1) + "\n")

    def command(self) -> list[str]:
        """Return the command line of the server, in the foreground; raises RegistryMissing."""
        program = shutil.which("docker-registry")
        if program is None:
            raise RegistryMissing("docker-registry is not installed; `make system` installs it.")
        return [program, "serve", str(self._configuration)]
