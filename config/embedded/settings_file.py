"""The file `var/env`: the secrets and ports that the first start chooses and later starts reuse."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

from config.embedded import keys, ports
from config.embedded.ports import PortTaken

# Easy to remember, and rarely in use.
PREFERRED_PORTS: Final = {
    "WEB_PORT": 8470,
    "REGISTRY_PORT": 5470,
    "PG_PORT": 5471,
    "REDIS_PORT": 5472,
    "ADMISSION_PORT": 8471,
}
PASSWORDS: Final = ("PG_SUPERUSER_PASSWORD", "PG_OWNER_PASSWORD", "PG_APP_PASSWORD", "REDIS_PASSWORD")
# Service -> the variable with the address of the user's own server instead of ours.
OWN_PART: Final = {"postgres": "DATABASE_URL", "redis": "REDIS_URL", "registry": "REGISTRY_URL"}
PART_OF_PORT: Final = {"PG_PORT": "postgres", "REDIS_PORT": "redis", "REGISTRY_PORT": "registry"}
# Other settings that `make up` stores for later starts and for every `manage.py` command.
REMEMBERED: Final = (
    "DATABASE_OWNER_URL",
    "ADMISSION_CLIENT_CA",
    "ADMISSION_HOST",
    "ADMISSION_NAMES",
    "ADMISSION_URL",
    "BUILD_CA_BUNDLE",
    "BUILD_DISK_MB",
    "BUILD_HOSTS",
    "BUILD_MEMORY_MB",
    "BUILD_PROCESSES",
    "BUILD_UNCONFINED",
    "TOKEN_ISSUER",
    "REGISTRY_SERVICE",
    "REGISTRY_PUBLIC_URL",
    "BEHIND_PROXY",
    "ALLOWED_HOSTS",
    "MAIL_FROM",
    "MAIL_URL",
    "OUTBOUND_ALLOW",
    "CRAWL_EVERY_S",
    "SCRATCH",
    "SYFT",
)
HEADER: Final = (
    "# Written by `make up`. Contains secrets: keep it private and back it up. Data cannot be read without FIELD_KEY.\n"
)


def read(path: Path) -> dict[str, str]:
    """Return the settings in the file, or {} without such a file."""
    if not path.exists():
        return {}
    lines = [line.strip() for line in path.read_text().splitlines()]
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: (shlex.split(raw) or [""])[0] for name, _, raw in pairs}


def write(path: Path, values: dict[str, str]) -> None:
    """Write the settings to a file that only its owner can read."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in sorted(values.items())]
    keys.write_private(path, HEADER + "\n".join(lines) + "\n")


def choose(home: Path, *, running: bool) -> dict[str, str]:
    """Return all settings for this start: stored values, new values, and values from the environment, which win.

    Raises PortTaken with the port and its holder when another program uses a stored port.
    """
    values = read(home / "env")
    for name in PASSWORDS:
        values.setdefault(name, keys.password())
    values.setdefault("SECRET_KEY", keys.password() + keys.password())
    values.setdefault("FIELD_KEY", keys.fernet_key())
    values.setdefault("REGISTRY_HOOK_SECRET", keys.password())
    values.setdefault("REGISTRY_HTTP_SECRET", keys.password())
    own = {part for part, variable in OWN_PART.items() if _is_own(part, variable, values)}
    taken: set[int] = set()
    for name, preferred in PREFERRED_PORTS.items():
        if given := os.environ.get(name):
            values[name] = given
        is_new = name not in values
        if is_new:
            values[name] = str(ports.choose(preferred, taken=taken))
        port = int(values[name])
        if not running and not is_new and PART_OF_PORT.get(name) not in own:
            other = "another installation that is starting" if not ports.hold(port) else ""
            if other or not ports.is_free(port):
                raise PortTaken(
                    f"Port {port} ({name}) is used by {other or ports.holder(port)}. Stop that program, or choose "
                    f"another port: {name}=<port> make up"
                )
        taken.add(port)
    values["EMBEDDED_PARTS"] = ",".join(part for part in OWN_PART if part not in own)
    values["EMBEDDED"] = "1"
    if given := os.environ.get("PUBLIC_URL"):
        values["PUBLIC_URL"] = given
    elif values.get("PUBLIC_URL", "http://localhost:").startswith("http://localhost:"):
        values["PUBLIC_URL"] = f"http://localhost:{values['WEB_PORT']}"  # follows the port
    key_file, certificate_file = home / "registry" / "token.pem", home / "registry" / "token-ca.pem"
    if not (key_file.exists() and certificate_file.exists()):
        keys.make_token_key(key_file, certificate_file)
    values |= {"TOKEN_KEY_FILE": str(key_file), "TOKEN_CERT_FILE": str(certificate_file)}
    values.setdefault("TOKEN_ISSUER", "gravingdock")
    values.setdefault("REGISTRY_SERVICE", "gravingdock-registry")
    for variable in (*OWN_PART.values(), *REMEMBERED):
        if given := os.environ.get(variable):
            values[variable] = given
    if os.environ.get("DATABASE_URL") and "DATABASE_OWNER_URL" not in os.environ:
        values["DATABASE_OWNER_URL"] = values["DATABASE_URL"]
    return values


def _is_own(part: str, variable: str, values: dict[str, str]) -> bool:
    """Return whether the user's own server replaces the service, set now or at an earlier start.

    An empty variable (`NAME= make up`) ends this. The choice is stored, because starting with our empty database would
    look like a loss of all data.
    """
    if variable in os.environ:
        return bool(os.environ[variable])
    return "EMBEDDED_PARTS" in values and part not in values["EMBEDDED_PARTS"].split(",")
