"""The credential helper: its protocol, and skopeo and buildah that use it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lifecycle.cli import client
from lifecycle.cli.credentials import NOT_FOUND
from tests.factories import dock, oci
from tests.services import Services
from tests.skopeo import skopeo

HELPER = "credential-helper"


@pytest.fixture
def ask(run: Any, monkeypatch: pytest.MonkeyPatch, settings: Any, db: None) -> Any:
    """Return a function that asks the helper as anna of registry.example.com: (exit code, stdout)."""
    settings.REGISTRY_PUBLIC_URL = "https://registry.example.com"
    anna = dock.user("anna", "creator", of=dock.team("shop"))

    def act(action: str, given: str = "", *, user: Any = anna) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        code, out, _ = run(user, HELPER, action)
        return code, out.strip()

    return act


@pytest.mark.parametrize("server", ["registry.example.com", "https://registry.example.com", "registry.example.com/v2/"])
def test_registry_of_the_login_gets_its_token(ask: Any, server: str) -> None:
    code, out = ask("get", server)
    assert code == 0
    assert json.loads(out) == {"ServerURL": server, "Username": "anna", "Secret": client.stored_login().token}


@pytest.mark.parametrize(
    "server",
    ["docker.io", "registry.example.com:5000", "evil.example.com/registry.example.com", "registry.example.com.evil.io",
     "https://evil.io/?registry.example.com", "https://registry.example.com@evil.io", ""],
)  # fmt: skip
def test_token_goes_to_no_other_registry(ask: Any, server: str) -> None:
    code, out = ask("get", server)
    assert (code, out) == (1, NOT_FOUND)


def test_other_actions_of_the_protocol(ask: Any) -> None:
    assert ask("list") == (0, '{"registry.example.com": "anna"}')
    assert json.loads(ask("version")[1])["Name"] == "gravingdock"
    assert ask("erase", "registry.example.com") == (0, "")
    mine = {"ServerURL": "registry.example.com", "Username": "anna", "Secret": "another"}
    code, out = ask("store", json.dumps(mine))
    assert (code, "gravingdock auth login" in out) == (1, True)


def test_without_a_login_clients_go_on_without_a_password(ask: Any) -> None:
    assert ask("get", "registry.example.com", user=None) == (1, NOT_FOUND)
    assert ask("list", user=None) == (0, "{}")


def test_skopeo_and_buildah_use_it(live_stack: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accounts import tokens

    anna = dock.user("anna", "creator", of=dock.team("shop"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    client.save_login(client.Login(live_stack.web_url, tokens.create_token(anna, kind="pat", name="cli")[1]))
    program = tmp_path / "docker-credential-gravingdock"
    root = Path(__file__).resolve().parents[3]
    program.write_text(f'#!/bin/sh\ncd {root} && exec {sys.executable} -m lifecycle.cli {HELPER} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    host = f"localhost:{live_stack.registry.port}"
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"credHelpers": {host: "gravingdock"}}))
    layout = oci.layout(tmp_path / "image", oci.image("helped"))
    pushed = skopeo("copy", "--dest-tls-verify=false", "--dest-authfile", auth, f"oci:{layout}:latest",
                    f"docker://{host}/shop/helped:1")  # fmt: skip
    assert pushed.returncode == 0, pushed.stderr
    refused = skopeo("copy", "--dest-tls-verify=false", "--dest-authfile", auth, f"oci:{layout}:latest",
                     f"docker://{host}/base/helped:1")  # fmt: skip
    assert refused.returncode != 0
    storage = ["--storage-driver", "vfs", "--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run")]
    seen = subprocess.run(
        ["buildah", *storage, "pull", "--tls-verify=false", "--authfile", str(auth), f"docker://{host}/shop/helped:1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert seen.returncode == 0, seen.stderr
