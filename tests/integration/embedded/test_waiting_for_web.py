"""`make up` waits for a slow web process, says that it waits, and gives up at once when the process has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from config.embedded import ports
from config.embedded.__main__ import WEB_WAIT_S, Installation
from config.embedded.supervisor import PartDied


@pytest.fixture
def slow_web() -> Iterator[SimpleNamespace]:
    """A web process that answers 503 until `ready_at`, under a supervisor that says `state`."""
    web = SimpleNamespace(ready_at=float("inf"), state="RUNNING")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if time.monotonic() >= web.ready_at else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Print nothing."""

    with HTTPServer((ports.LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        web.installation = Installation.__new__(Installation)
        web.installation.values = {"WEB_PORT": str(server.server_port), "PUBLIC_URL": "http://localhost"}
        web.installation.supervisor = SimpleNamespace(
            states=lambda: {"web": web.state}, tail=lambda name: f"the last line of {name}"
        )
        yield web
        server.shutdown()
        thread.join()


def test_slow_web_process_is_waited_for_and_the_user_told(
    slow_web: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert WEB_WAIT_S >= 180
    slow_web.ready_at = time.monotonic() + 1.5
    slow_web.installation._await_web(60, say_every_s=0.5)
    said = capsys.readouterr().out.splitlines()
    assert said
    assert set(said) == {
        "  The web process is still starting (HTTP Error 503: Service Unavailable). Waiting at most 60 s."
    }


def test_web_process_that_ended_is_not_waited_for(slow_web: SimpleNamespace) -> None:
    slow_web.state = "BACKOFF"
    started = time.monotonic()
    with pytest.raises(PartDied, match=r"not ready.*run the same command again(.|\n)*the last line of web"):
        slow_web.installation._await_web(60)
    assert time.monotonic() - started < 30


def test_web_process_that_stays_unready_is_given_up(slow_web: SimpleNamespace) -> None:
    with pytest.raises(PartDied, match="not ready"):
        slow_web.installation._await_web(1)
