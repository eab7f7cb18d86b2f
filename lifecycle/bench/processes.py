"""The processes of a bench: web, workers and registry, as in an installation. They end with the bench."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from django.conf import settings

from config.embedded import keys, ports, web
from config.embedded.registry_server import RegistryServer
from lifecycle.bench.scratch import NoPlace


class Processes:
    """The started processes by name. They are in the group of this process, so that they end with the group."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._home = Path(settings.HOME)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)

    def stop(self, name: str) -> None:
        """Stop one process now."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def web(self, *, has_pages: bool = False, workers: int | None = None) -> int:
        """Start the web process like `make up`, and return its id.

        Only pages (`has_pages`) need the static files to be collected.
        """
        Path(settings.STATIC_ROOT).mkdir(exist_ok=True)
        if has_pages:  # every time, because the files of the installation may be older than the code
            collect = [sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"]
            subprocess.run(collect, cwd=settings.BASE_DIR, check=True)
        port = urlsplit(settings.PUBLIC_URL).port or 0
        self._start("web", web.command(port, workers=workers))
        self._await_port("web", port)
        return self._running["web"].pid

    def workers(self) -> None:
        """Start the workers like `make up`, but no scanner, because a push is visible before its scan."""
        celery = [str(Path(sys.executable).with_name("celery")), "-A", "config.celery", "worker", "--loglevel=WARNING"]
        quiet = ["--without-gossip", "--without-mingle", "--pool=prefork", "-n", "bench@%h"]
        self._start("worker", [*celery, *quiet, "-Q", "ingest,match,promote", "-c", "2"])

    def ticker(self) -> None:
        """Start the ticker, which queues what is due."""
        self._start("ticker", [sys.executable, "manage.py", "ticker"])

    def registry(self) -> None:
        """Start an empty registry that uses the token endpoint of the bench's web process and notifies it of pushes."""
        port = urlsplit(settings.REGISTRY_URL).port or 0
        server = RegistryServer(
            folder=self._home / "registry",
            port=port,
            public_url=settings.PUBLIC_URL,
            service=settings.REGISTRY_SERVICE,
            issuer=settings.TOKEN_ISSUER,
            certificate_file=self._home / "token-ca.pem",
            hook_secret=settings.REGISTRY_HOOK_SECRET,
            http_secret=keys.password(),
        )
        server.prepare()
        self._start("registry", server.command())
        self._await_port("registry", port)

    def _start(self, name: str, command: list[str]) -> None:
        with (self._home / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, cwd=settings.BASE_DIR, env=dict(os.environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _await_port(self, name: str, port: int, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._running[name].poll() is None:
            if ports.is_listening(port):
                return
            time.sleep(0.05)
        raise NoPlace(f"{name} did not start:\n{(self._home / f'{name}.log').read_text(errors='replace')[-2000:]}")
