"""The collector of the embedded registry, with a real supervisor and a real registry."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.embedded import collecting, keys, ports
from config.embedded.registry_server import RegistryServer
from config.embedded.supervisor import Part, Supervisor

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Yard:
    """A supervised registry in a folder of its own, without sign-in."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "registry"
        self.folder.mkdir()
        key, certificate = self.folder / "token.pem", self.folder / "token-ca.pem"
        keys.make_token_key(key, certificate)
        self.server = RegistryServer(
            self.folder, ports.scratch(1)[0], "http://localhost:9", "s", "i", certificate, "hook", "secret"
        )
        self.server.prepare()
        configuration = json.loads((self.folder / "config.yml").read_text())
        del configuration["auth"], configuration["notifications"]
        (self.folder / "config.yml").write_text(json.dumps(configuration))
        self.supervisor = Supervisor(home, home)
        self.supervisor.write([Part("registry", self.server.command(), home)])
        self.supervisor.start()
        self.supervisor.start_part("registry")

    def call(self, method: str, path: str, content: bytes | None = None, kind: str = "") -> int:
        headers = {"Content-Type": kind or "application/octet-stream", "Accept": f"{MANIFEST}, */*"}
        address = path if path.startswith("http") else f"http://127.0.0.1:{self.server.port}/v2/{path}"
        request = urllib.request.Request(address, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.location = str(answer.headers.get("Location") or "")
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def upload(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert self.call("POST", "a/b/blobs/uploads/") == 202
        mark = "&" if "?" in self.location else "?"
        assert self.call("PUT", f"{self.location}{mark}digest={digest}", content) == 201
        return digest

    def push(self, layer: bytes) -> tuple[str, str]:
        """Push an image of one layer; return the digests of its manifest and its layer."""
        config, blob = self.upload(b"{}" + layer[:1]), self.upload(layer)
        manifest = json.dumps(
            {
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 3, "digest": config},
                "layers": [{"mediaType": "application/octet-stream", "size": len(layer), "digest": blob}],
            }
        ).encode()  # fmt: skip
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        assert self.call("PUT", f"a/b/manifests/{digest}", manifest, MANIFEST) == 201
        return digest, blob

    def age(self, seconds: float) -> None:
        """Let everything in the registry be this old."""
        then = time.time() - seconds
        for path in (self.folder / "data").rglob("*"):
            os.utime(path, (then, then))


@pytest.fixture
def yard() -> Iterator[Yard]:
    with tempfile.TemporaryDirectory(prefix="gdgc-") as folder:
        made = Yard(Path(folder))
        yield made
        made.supervisor.shut_down(["registry"])


def test_layers_of_deleted_images_go_and_those_of_others_stay(yard: Yard) -> None:
    kept, kept_layer = yard.push(b"kept" * 1000)
    gone, gone_layer = yard.push(b"gone" * 1000)
    assert yard.call("DELETE", f"a/b/manifests/{gone}") == 202
    yard.age(3600)

    would = collecting.collect(yard.supervisor, yard.folder, is_dry_run=True)
    assert yard.call("HEAD", f"a/b/blobs/{gone_layer}") == 200
    found = collecting.collect(yard.supervisor, yard.folder)

    assert would.blobs == found.blobs == 3  # its manifest, its configuration and its layer
    assert found.freed_bytes >= 4000
    assert [yard.call("HEAD", f"a/b/blobs/{each}") for each in (gone_layer, kept_layer)] == [404, 200]
    assert yard.call("GET", f"a/b/manifests/{kept}") == 200
    again, _ = yard.push(b"gone" * 1000)
    assert again == gone


def test_nothing_is_collected_while_somebody_pushes(yard: Yard) -> None:
    layer = yard.upload(b"waits for its manifest")
    with pytest.raises(collecting.NotPossible, match=r"uploaded 0 minutes ago.*Try again in 15 minutes"):
        collecting.collect(yard.supervisor, yard.folder)
    assert yard.call("HEAD", f"a/b/blobs/{layer}") == 200
    yard.age(3600)
    assert yard.call("POST", "a/b/blobs/uploads/") == 202  # another one begins
    with pytest.raises(collecting.NotPossible, match="uploaded"):
        collecting.collect(yard.supervisor, yard.folder)
    yard.age(3600)
    assert collecting.collect(yard.supervisor, yard.folder).blobs == 1


def test_the_registry_runs_again_whatever_happened(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.push(b"kept")
    yard.age(3600)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(collecting.NotPossible, match="not installed"):
        collecting.collect(yard.supervisor, yard.folder)
    assert yard.supervisor.states()["registry"] == "RUNNING"


def test_an_empty_registry_has_nothing_to_collect(yard: Yard) -> None:
    assert collecting.collect(yard.supervisor, yard.folder).blobs == 0
