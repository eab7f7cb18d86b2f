"""The admission port: granian serves reviews with TLS. It needs neither PostgreSQL nor Redis.

`python -m config.embedded.admission PORT` makes the certificate if it is missing or ends soon, holds the port, and
becomes granian.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from config import env
from config.embedded import ports, web
from lifecycle.admission import certificates
from lifecycle.admission.constants import THREADS


def command(port: int) -> list[str]:
    """Return the command of the admission server."""
    return [sys.executable, "-m", "config.embedded.admission", str(port)]


def folder() -> Path:
    """Return the folder of the snapshot, the decisions and the certificates."""
    return Path(env.text("ADMISSION_FOLDER", str(env.HOME / "admission")))


def names() -> list[str]:
    """Return the names that the certificate is for."""
    urls = (env.text("ADMISSION_URL", ""), env.text("PUBLIC_URL"))
    hosts = [urlsplit(url).hostname or "" for url in urls]
    return certificates.names_for(*hosts, *env.words("ADMISSION_NAMES", ""))


def _granian(port: int) -> list[str]:
    tls = folder() / certificates.FOLDER
    words = [
        str(Path(sys.executable).with_name("granian")), "--interface", "wsgi", "--no-ws",
        "--host", env.text("ADMISSION_HOST", ports.LOOPBACK), "--port", str(port),
        "--workers", "1", "--blocking-threads", str(THREADS), "--respawn-failed-workers",
        "--ssl-certificate", str(tls / certificates.CERTIFICATE), "--ssl-keyfile", str(tls / certificates.KEY),
    ]  # fmt: skip
    if authority := env.text("ADMISSION_CLIENT_CA", ""):  # a file: only API servers with its certificates may ask
        words += ["--ssl-ca", authority, "--ssl-client-verify"]
    return [*words, "config.admission:application"]


def main() -> NoReturn:
    """Become the admission server; ends with status 1 and a message when another program uses the port."""
    port = int(sys.argv[1])
    certificates.ensure(folder(), names())
    try:
        web.take(port)
    except ports.PortTaken as problem:
        raise SystemExit(f"gravingdock: {problem}") from None
    (folder() / certificates.PID).write_text(str(os.getpid()))
    words = _granian(port)
    os.execv(words[0], words)  # noqa: S606 -- no shell is wanted


if __name__ == "__main__":
    main()
