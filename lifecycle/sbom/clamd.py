"""Ask a ClamAV daemon about files, by the INSTREAM command of clamd(8). Where no daemon is set, nothing is asked."""

from __future__ import annotations

import socket
import struct
from typing import IO, Final, Self
from urllib.parse import urlsplit

from lifecycle.core.errors import UpstreamError

_CHUNK: Final = 64 * 1024
_TIMEOUT_S: Final = 60
_ANSWER_MAX: Final = 4096
_TOO_LARGE: Final = "size limit exceeded"


class ScannerUnavailable(UpstreamError):
    """The malware scanner did not answer, or its answer cannot be read."""

    code = "malware_scanner_unavailable"


class FileTooLarge(Exception):  # not an error: the file stays unknown
    """The file is larger than the daemon takes (its StreamMaxLength)."""


class Clamd:
    """A ClamAV daemon at `unix:/run/clamav/clamd.ctl` or `tcp://host:3310`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def version(self) -> str:
        """Return its version with that of its signatures: "ClamAV 1.0.9/27000/Sat Nov 28"."""
        with self._connect() as connection:
            connection.sendall(b"zVERSION\0")
            return self._answer(connection)

    def infection_of(self, file: IO[bytes], first: bytes = b"") -> str:
        """Return the name of the signature that `first` and the rest of `file` match; "" for none.

        Raises FileTooLarge, ScannerUnavailable.
        """
        with self._connect() as connection:
            try:
                connection.sendall(b"zINSTREAM\0")
                chunk = first or file.read(_CHUNK)
                while chunk:
                    connection.sendall(struct.pack(">I", len(chunk)) + chunk)
                    chunk = file.read(_CHUNK)
                connection.sendall(struct.pack(">I", 0))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the daemon stops reading at its limit, and says so in its answer
            except OSError as error:
                raise ScannerUnavailable(f"The malware scanner did not take the file: {error}") from None
            answer = self._answer(connection)
        if answer.endswith(" FOUND"):
            return answer.removesuffix(" FOUND").partition(": ")[2][:200]
        if answer.endswith(": OK"):
            return ""
        if _TOO_LARGE in answer:
            raise FileTooLarge
        raise ScannerUnavailable(f"The malware scanner answered: {answer[:200]}")

    def _connect(self) -> _Closing:
        try:
            if self._address.startswith("unix:"):
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.settimeout(_TIMEOUT_S)
                try:
                    connection.connect(self._address.removeprefix("unix:"))
                except OSError:
                    connection.close()
                    raise
            else:
                parts = urlsplit(self._address)
                connection = socket.create_connection((parts.hostname or "", parts.port or 3310), timeout=_TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise ScannerUnavailable(f"The malware scanner at {self._address} does not answer: {error}") from None
        return _Closing(connection)

    def _answer(self, connection: _Closing) -> str:
        received = b""
        try:
            while not received.endswith(b"\0") and len(received) < _ANSWER_MAX:
                part = connection.recv(_ANSWER_MAX)
                if not part:
                    break
                received += part
        except OSError as error:
            raise ScannerUnavailable(f"The malware scanner did not answer: {error}") from None
        return received.rstrip(b"\0\n").decode(errors="replace")


class _Closing:
    """A connection that closes at the end of a block."""

    def __init__(self, connection: socket.socket) -> None:
        self.sendall = connection.sendall
        self.recv = connection.recv
        self._close = connection.close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
