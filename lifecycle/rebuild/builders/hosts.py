"""The hosts that a build can reach: those of this machine's own settings for apt, pip, npm and Go, and BUILD_HOSTS."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings

from lifecycle.rebuild.builders import settings_files

_PORTS: Final = {"http": 80, "https": 443}
_TIMEOUT_S: Final = 15
# pip knows where its index keeps the files. The index of this machine's settings names its own.
_PIP_DEFAULT: Final = (
    "from pip._internal.models.index import PyPI; print(PyPI.url, 'https://' + PyPI.file_storage_domain)"
)
_ADDRESS: Final = re.compile(r"https?://[^\s'\"|,\]]+")
HostPort = tuple[str, int]


def allowed() -> set[HostPort]:
    """Return the (host, port) pairs that builds can reach, read now. A host without a port has the ports of the web."""
    pairs: set[HostPort] = set()
    with ThreadPoolExecutor() as pool:  # each asks a program
        for texts in pool.map(lambda read: list(read()), (_apt, _pip, _npm, _go)):
            for text in texts:
                pairs |= _pairs_of(text)
    for word in settings.BUILD_HOSTS:
        pairs |= _pairs_of(f"http://{word}")
    return pairs


def never() -> set[HostPort]:
    """Return the (host, port) pairs of Gravingdock's own servers, which no setting opens for builds."""
    pairs: set[HostPort] = set()
    addresses = [settings.REGISTRY_URL, settings.REGISTRY_PUBLIC_URL, settings.REDIS_URL, settings.PUBLIC_URL]
    for address in addresses:
        parts = urlsplit(address)
        if parts.hostname:
            pairs.add((parts.hostname, parts.port or {**_PORTS, "redis": 6379, "rediss": 6379}.get(parts.scheme, 0)))
    database = settings.DATABASES["default"]
    pairs.add((str(database.get("HOST") or "localhost"), int(database.get("PORT") or 5432)))
    local = {"localhost", "127.0.0.1", "::1"}
    own_ports = {port for host, port in pairs if host in local or host.startswith("/")}
    return pairs | {(host, port) for host in local for port in own_ports}


def _pairs_of(text: str) -> set[HostPort]:
    """Return the pairs of one address. Without a port, a mirror may lead from http to https, so both are open."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return set()
    if not host or parts.scheme not in _PORTS:
        return set()
    return {(host, port)} if port else {(host, number) for number in _PORTS.values()}


def _apt() -> Iterable[str]:
    for uri, _ in settings_files.sources(Path("/etc/apt")):
        if uri.startswith("mirror+file:"):
            path = Path(uri.removeprefix("mirror+file:"))
            yield from _ADDRESS.findall(path.read_text(errors="replace")) if path.is_file() else ()
        else:
            yield uri.removeprefix("mirror+")


def _pip() -> Iterable[str]:
    configured = _output([sys.executable, "-m", "pip", "config", "list"])
    keys = ("index-url", "extra-index-url", "find-links", "trusted-host")
    lines = [line for line in configured.splitlines() if line.partition("=")[0].rpartition(".")[2] in keys]
    for line in lines:
        yield from _ADDRESS.findall(line)
    if not any(".index-url=" in line for line in lines):
        yield from _output([sys.executable, "-c", _PIP_DEFAULT]).split()


def _npm() -> Iterable[str]:
    if shutil.which("npm"):
        yield from _ADDRESS.findall(_output(["npm", "config", "get", "registry"]))


def _go() -> Iterable[str]:
    if not shutil.which("go"):
        return
    proxies, database = (*_output(["go", "env", "GOPROXY", "GOSUMDB"]).splitlines(), "", "")[:2]
    yield from _ADDRESS.findall(proxies)
    name, _, address = database.partition(" ")  # "<name>" or "<name>+<key> <address>"
    if address:
        yield from _ADDRESS.findall(address)
    elif name and name != "off":
        yield f"https://{name.partition('+')[0]}"


def _output(command: list[str]) -> str:
    """Return what a program says about its settings, at most a minute ago; "" when it fails or takes too long."""
    return _output_in_minute(tuple(command), int(time.monotonic() // 60))


@functools.lru_cache(maxsize=8)
def _output_in_minute(command: tuple[str, ...], minute: int) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=environment, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
