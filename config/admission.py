"""The WSGI application of admission alone, with TLS on a port of its own. It needs neither Django nor PostgreSQL."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import env
from lifecycle.admission.server import PREFIX, Application

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_NOT_FOUND: Final = b"Not found.\n"
_reviews: Final = Application(Path(env.text("ADMISSION_FOLDER", str(env.HOME / "admission"))), env.text("PUBLIC_URL"))

# A thread that writes what was decided can work for longer than a review: it hands over after half a millisecond, and
# not after five.
sys.setswitchinterval(0.0005)
gc.collect()  # what is loaded is permanent: without the freeze, some review waits for the garbage collector
gc.freeze()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a review, or 404 for any other address."""
    path = environ.get("PATH_INFO", "")
    if path.startswith(PREFIX):
        return _reviews(environ, start_response)
    is_alive = path == "/livez" and environ["REQUEST_METHOD"] == "GET"
    content = b"ok\n" if is_alive else _NOT_FOUND
    start_response(
        "200 OK" if is_alive else "404 Not Found",
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(content)))],
    )
    return [content]
