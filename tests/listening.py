"""A server that takes reports as Gravingdock does, and answers them as a test says."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from config.embedded import ports

NO_ANSWER: Final = 0  # in place of a status: the connection ends
JUNK: Final = 1  # what is sent is no HTTP


class Listener:
    """Answers reports as a test says: statuses in turn, then 202. Keeps what was sent."""

    def __init__(
        self, *statuses: int, tls: ssl.SSLContext | None = None, location: str = "", port: int | None = None
    ) -> None:
        self.sent: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.gets: list[str] = []
        self._statuses, self._location, self._tls = list(statuses), location, tls
        self.port = port or ports.scratch(1)[0]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [report for _, report in self.sent]

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                outer.sent.append((dict(self.headers), json.loads(gzip.decompress(content))))
                status = outer._statuses.pop(0) if outer._statuses else 202
                if status == JUNK:
                    self.wfile.write(b"this is no HTTP\r\n\r\n")
                if status in (NO_ANSWER, JUNK):
                    self.close_connection = True
                    return
                self.send_response(status)
                if outer._location:
                    self.send_header("Location", outer._location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                outer.gets.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that trusts us not
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
