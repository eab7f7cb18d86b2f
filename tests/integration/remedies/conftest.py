"""Run one command of `gravingdock` against the application."""

from __future__ import annotations

import httpx
import pytest

from accounts import tokens
from lifecycle.cli import client
from lifecycle.cli.main import main
from tests.integration.cli.test_cli import to_application


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs one command as a user and returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def as_user(user, *arguments):
        client.save_login(client.Login("http://localhost", tokens.create_token(user, kind="pat", name="cli")[1]))
        try:
            code = main([str(part) for part in arguments], transport=httpx.MockTransport(to_application))
        except SystemExit as stop:  # argparse exits this way
            code = stop.code
        return code, *capsys.readouterr()

    return as_user
