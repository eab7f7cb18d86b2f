"""A proxy before a real registry: it can hold one request, so that a test knows exactly how far a worker has come.

It can also be away from one request on, as a registry that stops in the middle of a promotion.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

from config.embedded import ports

HOLD_MAX_S: Final = 300.0  # longer than any test waits while it holds a request
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class Hold:
    """One request that waits: `reached` when it came, and it goes on, once, after `release()`.

    With `after`, the registry has done what was asked, and only the answer waits.
    """

    def __init__(self, matches: Callable[[str, str], bool], *, after: bool) -> None:
        self.matches = matches
        self.after = after
        self.reached = threading.Event()
        self._released = threading.Event()
        self._lock = threading.Lock()

    def wait_if_it_matches(self, method: str, path: str, *, after: bool) -> None:
        """Hold the first request that matches; the others pass."""
        with self._lock:
            if after != self.after or self.reached.is_set() or not self.matches(method, path):
                return
            self.reached.set()
        self._released.wait(HOLD_MAX_S)

    def release(self) -> None:
        self._released.set()


class RegistryProxy:
    """Passes everything on to `upstream`, and rewrites what leads past it."""

    def __init__(self, upstream: str) -> None:
        (port,) = ports.scratch(1)
        self.url = f"http://localhost:{port}"
        self._upstream = upstream
        self._hold: Hold | None = None
        self._goes_away_at: Callable[[str, str], bool] | None = None
        self._is_away = False
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):  # whatever the method
                    return lambda: proxy.pass_on(self)
                raise AttributeError(name)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((ports.LOOPBACK, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, matches: Callable[[str, str], bool], *, after: bool = False) -> Iterator[Hold]:
        """Hold the first request whose method and path match, until it is released or the block ends."""
        self._hold = Hold(matches, after=after)
        try:
            yield self._hold
        finally:
            self._hold.release()
            self._hold = None

    @contextmanager
    def away_from(self, matches: Callable[[str, str], bool]) -> Iterator[None]:
        """Close every connection without an answer, from the first request that matches until the block ends.

        Raises AssertionError when no request matched.
        """
        self._goes_away_at, self._is_away = matches, False
        try:
            yield
            assert self._is_away
        finally:
            self._goes_away_at, self._is_away = None, False

    def _is_away_for(self, method: str, path: str) -> bool:
        if self._goes_away_at is not None and self._goes_away_at(method, path):
            self._is_away = True
        return self._is_away

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request with the registry's answer."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self._is_away_for(request.command, request.path):
            request.close_connection = True
            return
        hold = self._hold
        if hold is not None:
            hold.wait_if_it_matches(request.command, request.path, after=False)
        link = http.client.HTTPConnection(urlsplit(self._upstream).netloc, timeout=60)
        try:
            link.request(request.command, request.path, body=body or None, headers=dict(request.headers.items()))
            answer = link.getresponse()
            content = answer.read()
            if hold is not None:
                hold.wait_if_it_matches(request.command, request.path, after=True)
            request.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    request.send_header(name, value.replace(self._upstream, self.url))
            length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
            request.send_header("Content-Length", length or "0")
            request.end_headers()
            request.wfile.write(content)
        except OSError:
            request.close_connection = True  # whoever asked was killed meanwhile, or the registry is away
        finally:
            link.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
