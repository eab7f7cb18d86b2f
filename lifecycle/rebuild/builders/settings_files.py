"""The machine's own settings for builds: mounted read-only while a build runs, never part of the image.

Behind a proxy or an internal mirror, builds need the CA bundle, the package index and the mirrors of the machine. They
must never become part of an image or a log, for example as ARG, ENV, COPY, label or history.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from django.conf import settings

from lifecycle.core.errors import Malformed

# Path inside a build. `/dev` is our own mount during a build, so this path never becomes part of a layer.
FOLDER: Final = "/dev/gravingdock"
SYSTEM_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
_DEB_LINE: Final = re.compile(r"deb\s+(?:\[[^]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")
_RELEASE: Final = "bookworm"


def write(folder: Path, *, with_proxy: bool = False) -> list[str]:
    """Write the files into `folder` and return the `--volume` values of those that replace a path of the image.

    Raises Malformed when the file of BUILD_CA_BUNDLE does not exist.

    `ca.pem` is the machine's own bundle, followed by the extra one (setting BUILD_CA_BUNDLE). `pip.conf` contains the
    path of `ca.pem` and the machine's package index. `apt.conf` contains the path of `ca.pem`. `apt/*.list` are the
    mirrors of `mirror+file:/etc/apt/mirrors/*.list` sources. In a box, pip keeps no proxy of the machine, because the
    box has its own. Programs that read none of these files use `variables`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bundle = _bundle()
    volumes = []
    if bundle:
        (folder / "ca.pem").write_bytes(bundle)
        (folder / "apt.conf").write_text(f'Acquire::https::CAInfo "{FOLDER}/ca.pem";\n')
        volumes.append(f"{FOLDER}/apt.conf:/etc/apt/apt.conf.d/99gravingdock:ro")
    (folder / "pip.conf").write_text(_pip_configuration(has_bundle=bool(bundle), with_proxy=with_proxy))
    volumes.append(f"{FOLDER}/pip.conf:/etc/pip.conf:ro")
    (folder / "apt").mkdir(exist_ok=True)
    for name, uris in mirrors().items():
        (folder / "apt" / f"{name}.list").write_text("".join(f"{uri}\n" for uri in uris))
    volumes.append(f"{FOLDER}/apt:/etc/apt/mirrors:ro")
    return volumes


def _bundle() -> bytes:
    """Return all certificates that builds trust; raises Malformed when the file of the setting does not exist."""
    extra = Path(settings.BUILD_CA_BUNDLE) if settings.BUILD_CA_BUNDLE else None
    if extra is not None and not extra.is_file():
        raise Malformed(f"The file of BUILD_CA_BUNDLE does not exist: {extra}. Correct the setting, or leave it empty.")
    own = Path(SYSTEM_BUNDLE)
    parts = [path.read_bytes() for path in (own, extra) if path is not None and path.is_file()]
    return b"\n".join(parts)


def variables(folder: Path) -> dict[str, str]:
    """Return the variables with the path of our bundle, for pip, OpenSSL and Node."""
    if not (folder / "ca.pem").exists():
        return {}
    return dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), f"{FOLDER}/ca.pem")


def _pip_configuration(*, has_bundle: bool, with_proxy: bool) -> str:
    """Return a pip.conf with the index settings of this machine's pip, and our bundle."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    kept_keys = {"index-url", "extra-index-url", "trusted-host", "default-timeout", "timeout", "proxy"}
    values: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, separator, value = line.partition("=")
        key = name.rpartition(".")[2]
        if separator and key in kept_keys and (with_proxy or key != "proxy"):
            values[key] = value.strip().strip("'\"")
    if has_bundle:
        values["cert"] = f"{FOLDER}/ca.pem"
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in sorted(values.items()))


def mirrors() -> dict[str, list[str]]:
    """Return the machine's Debian mirrors: {"debian": [...], "debian-security": [...]}, from its own apt sources."""
    uris_by_name: dict[str, list[str]] = {"debian": [], "debian-security": []}
    for uri, suite in sources(Path("/etc/apt")):
        if suite.startswith(_RELEASE):
            name = "debian-security" if "security" in suite else "debian"
            if uri not in uris_by_name[name]:
                uris_by_name[name].append(uri)
    return uris_by_name


def sources(folder: Path) -> list[tuple[str, str]]:
    """Return (address, suite) of every binary source, from one-line and deb822 files (sources.list(5))."""
    pairs: list[tuple[str, str]] = []
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in files:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            for block in re.split(r"\n\s*\n", text):
                fields = dict(
                    line.split(":", 1) for line in block.splitlines() if ":" in line and not line.startswith(("#", " "))
                )
                if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes").strip() != "no":
                    pairs += [(u, s) for u in fields.get("URIs", "").split() for s in fields.get("Suites", "").split()]
        elif path.suffix == ".list":
            pairs += [(m["uri"], m["suite"]) for line in text.splitlines() if (m := _DEB_LINE.match(line.strip()))]
    return pairs


def secrets_of(folder: Path) -> list[str]:
    """Return the texts of these files that must not appear in a log: hosts of mirrors and indexes."""
    words: set[str] = set()
    for path in (folder / "pip.conf", *(folder / "apt").glob("*.list")):
        if path.exists():
            words |= set(re.findall(r"https?://[^\s/]+", path.read_text()))
    hosts = {word.partition("://")[2] for word in words}
    return sorted(hosts | {host.rpartition("@")[2] for host in hosts}, key=len, reverse=True)


def environment() -> dict[str, str]:
    """Return the minimal environment of the builder, without our variables and those of the machine."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LANG": "C.UTF-8", "TERM": "dumb"}
