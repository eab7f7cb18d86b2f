"""A service that answers with signed replies: real HTTP, and a reply that a test can spoil."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lifecycle.core import clock
from lifecycle.core.signed_replies import signed_headers, why_not_signed

SECRET = "whsec_dGhpcyBpcyBhIHNlY3JldCBvZiB0ZXN0cw=="
KEY = b"this is a secret of tests"


class Service:
    """What it was asked is in `calls` (id, why the call is not signed) and `questions`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.questions: list[Any] = []
        self.reply: Any = lambda said: {"digest": said["digest"], "passed": True, "message": "12 checks passed."}
        self.spoil: Any = lambda headers, body: (headers, body)
        self.status = 200
        self.key = KEY
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                number = self.headers["webhook-id"]
                service.calls.append((number, why_not_signed(service.key, number, self.headers, body)))
                service.questions.append(json.loads(body))
                answer = json.dumps(service.reply(json.loads(body))).encode()
                headers = signed_headers(service.key, number, int(clock.now().timestamp()), answer)
                headers, answer = service.spoil(headers, answer)
                self.send_response(service.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def has_secret(self, secret: str) -> None:
        """Use the secret that Gravingdock showed."""
        self.key = base64.b64decode(secret.removeprefix("whsec_"))

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
