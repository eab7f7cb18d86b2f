"""Fixtures of several packages: a team with two environments, and the people of a promotion."""

from __future__ import annotations

import httpx
import pytest

from accounts import tokens
from lifecycle.cli import client
from lifecycle.cli.main import main
from tests.clients import to_application
from tests.factories.shop import make_dock, make_request
from tests.fakes.signing_service import Service


@pytest.fixture
def dock(db):
    """shop/api with one scanned image; dev, staging; requester, two approvers, deployer, outsider."""
    return make_dock()


@pytest.fixture
def request_(dock):
    """An open request for staging, of a digest that has been in dev."""
    return make_request(dock)


@pytest.fixture
def service(settings):
    """A service on 127.0.0.1 that answers with signed replies, and that may be called."""
    made = Service()
    settings.OUTBOUND_ALLOW = [made.address]
    yield made
    made.stop()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs one command of `gravingdock` as a user: (exit code, stdout, stderr)."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def as_user(user, *arguments):
        if user is not None:
            client.save_login(client.Login("http://localhost", tokens.create_token(user, kind="pat", name="cli")[1]))
        try:
            code = main([str(part) for part in arguments], transport=httpx.MockTransport(to_application))
        except SystemExit as stop:  # argparse exits this way
            code = stop.code
        return code, *capsys.readouterr()

    return as_user
