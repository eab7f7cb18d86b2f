"""`python -m config.alive`: health check of a container; exits with 0 when the web process responds."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit


def main() -> int:
    """Request `/livez` on this machine and return the exit code.

    The Host header is the public name, because the web process accepts no other.
    """
    port = os.environ.get("WEB_PORT", "8470")
    host = urlsplit(os.environ.get("PUBLIC_URL", "")).netloc or "localhost"
    request = urllib.request.Request(f"http://127.0.0.1:{port}/livez", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=4):
            return 0
    except (urllib.error.URLError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
