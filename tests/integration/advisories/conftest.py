"""Fixtures: an advisory export on disk, and package versions stored as the SBOM package stores them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lifecycle.sbom.models import PackageVersion
from lifecycle.versions.coordinates import coordinates
from tests.factories.advisories import Export


@pytest.fixture
def export(tmp_path: Path) -> Export:
    return Export(tmp_path / "export")


@pytest.fixture
def stored() -> Callable[..., PackageVersion]:
    """Store a package version with the coordinates of its purl."""

    def store(purl: str, source_name: str = "", source_version: str = "") -> PackageVersion:
        parsed = coordinates(purl, source_name=source_name, source_version=source_version)
        kind, _, rest = purl.removeprefix("pkg:").partition("/")
        return PackageVersion.objects.create(
            purl=purl,
            type=kind,
            name=rest.partition("?")[0].partition("@")[0].rpartition("/")[2],
            version=parsed.version,
            source_name=source_name,
            source_version=source_version,
            ecosystem=parsed.ecosystem,
            release=parsed.release,
            match_name=parsed.name,
            match_version=parsed.version,
            scheme=parsed.scheme,
            version_key=parsed.key,
            problem=parsed.problem or "",
        )

    return store


class Mirror(BaseHTTPRequestHandler):
    """A web server with a few files; answers for those in `cut` end half-way."""

    files: dict[str, bytes] = {}
    cut: set[str] = set()

    def do_GET(self):
        body = self.files.get(self.path)
        self.send_response(404 if body is None else 200)
        body = body or b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path in self.cut else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(settings):
    class Own(Mirror):
        files, cut = {}, set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    settings.OUTBOUND_ALLOW = [f"127.0.0.1:{server.server_port}"]
    Own.address = f"http://127.0.0.1:{server.server_port}"
    yield Own
    server.shutdown()
    server.server_close()
