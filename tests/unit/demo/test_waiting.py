"""How the demonstration waits, without a server."""

from __future__ import annotations

from lifecycle.cli.client import Unreachable
from lifecycle.demo.server import Server
from lifecycle.demo.telling import Teller


def test_wait_continues_after_failed_request():
    calls = []

    def condition():
        calls.append(1)
        if len(calls) == 1:
            raise Unreachable("Something broke on our side.")
        return "there"

    server = Server("http://localhost", {}, Teller(print))
    assert server._await(5, condition, "it", every_s=0)[0] == "there"
