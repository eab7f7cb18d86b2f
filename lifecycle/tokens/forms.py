"""Form parameters of requests to a plain WSGI callable.

Clients send bodies in chunks without a length, which Django would drop. They are read here, up to a limit.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

BODY_MAX_BYTES: Final = 64 * 1024
QUERY_MAX: Final = 64 * 1024  # characters
_PARAMETERS_MAX: Final = 2000


class BadForm(Exception):
    """The parameters cannot be read, for the reason in the message. `status` is that of the answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def parameters(text: str) -> dict[str, list[str]]:
    """Return the values of each parameter; raises BadForm."""
    if len(text) > QUERY_MAX:
        raise BadForm(HTTPStatus.REQUEST_URI_TOO_LONG, "The request is too long.")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_PARAMETERS_MAX, errors="replace")
    except ValueError:
        raise BadForm(HTTPStatus.BAD_REQUEST, "Too many parameters.") from None


def one(parameters: dict[str, list[str]], name: str) -> str:
    """Return the value of a parameter, "" without it; raises BadForm if it has two different ones."""
    values = parameters.get(name, [""])
    if len(set(values)) > 1:
        raise BadForm(HTTPStatus.BAD_REQUEST, f"Parameter {name} has two different values. Send it once.")
    return values[0]


def body_of(environ: WSGIEnvironment) -> str:
    """Return the body as text, chunked or not. Raises BadForm, also (413) for a body above the limit."""
    length_text = environ.get("CONTENT_LENGTH") or ""
    stream = environ["wsgi.input"]
    too_long = BadForm(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too long.")
    if length_text:
        if not length_text.isascii() or not length_text.isdigit():
            raise BadForm(HTTPStatus.BAD_REQUEST, "Content-Length is not a number.")
        if int(length_text) > BODY_MAX_BYTES:
            raise too_long
        body = stream.read(int(length_text))
    elif environ.get("wsgi.input_terminated") or environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        pieces, size = [], 0
        while piece := stream.read(BODY_MAX_BYTES + 1 - size):
            pieces.append(piece)
            size += len(piece)
            if size > BODY_MAX_BYTES:
                raise too_long
        body = b"".join(pieces)
    else:
        body = b""
    return str(body, "utf-8", "replace")
