"""Typed readers for the settings of operators. A bad value stops the process with a clear message.

Order: the environment, then the file `$GRAVINGDOCK_HOME/env` (written by `make up`, mode 0600), then the default.
Instead of `NAME`, `NAME_FILE` can give the path of a file with the value (for container secrets).
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

BASE_DIR: Final = Path(__file__).resolve().parent.parent
# Folder with the data of embedded servers, secrets and scratch files. `make up` stores everything below it.
HOME: Final = Path(os.environ.get("GRAVINGDOCK_HOME") or BASE_DIR / "var").resolve()


class BadSetting(SystemExit):
    """A setting is missing or malformed. The process exits and prints the setting and the reason."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"gravingdock: setting {name}: {problem}")


def _read_env_file(path: Path) -> dict[str, str]:
    """Return the `NAME=value` lines of `path` (shell quoting is allowed), or {} without such a file."""
    values: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, PermissionError):
        return values
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, separator, raw = stripped.partition("=")
        if not separator:
            raise BadSetting(f"{path}:{number}", "expected NAME=value")
        parts = shlex.split(raw)
        values[name.strip()] = parts[0] if parts else ""
    return values


_FILE_VALUES: Final = _read_env_file(HOME / "env")


def text(name: str, default: str | None = None) -> str:
    """Return the setting `name`; raises BadSetting when it is missing and has no default."""
    if (path := os.environ.get(name + "_FILE") or _FILE_VALUES.get(name + "_FILE")) is not None:
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise BadSetting(name + "_FILE", f"cannot read {path}: {error.strerror}") from error
    value = os.environ.get(name) or _FILE_VALUES.get(name)
    if value is None or value == "":
        if default is None:
            raise BadSetting(name, "is not set; run `make up` first, or set it in the environment")
        return default
    return value


def beginning_with(prefix: str) -> dict[str, str]:
    """Return all settings whose name begins with `prefix`, by name; raises BadSetting for a file that is not there."""
    names = {name.removesuffix("_FILE") for name in (*os.environ, *_FILE_VALUES) if name.startswith(prefix)}
    return {name: text(name, "") for name in names}


def secret(name: str, *, min_length: int = 32) -> str:
    """Return a secret of at least `min_length` characters; raises BadSetting for a missing or sample value."""
    value = text(name)
    if len(value) < min_length:
        raise BadSetting(name, f"is shorter than {min_length} characters; generate a random value")
    if value.lower().startswith(("changeme", "insecure", "example", "django-insecure")):
        raise BadSetting(name, "is a sample value; generate a random value")
    return value


def integer(name: str, default: int, *, minimum: int = 0) -> int:
    """Return a whole number >= `minimum`; raises BadSetting."""
    raw = text(name, str(default))
    try:
        value = int(raw)
    except ValueError:
        raise BadSetting(name, f"is not a whole number: {raw[:40]!r}") from None
    if value < minimum:
        raise BadSetting(name, f"is below {minimum}: {value}")
    return value


def boolean(name: str, default: bool) -> bool:
    """Return True for 1, true, yes, on; False for 0, false, no, off; raises BadSetting for others."""
    raw = text(name, "1" if default else "0").lower()
    if raw in {"1", "true", "yes", "on"}:
        return True
    if raw in {"0", "false", "no", "off"}:
        return False
    raise BadSetting(name, f"is not a boolean (use 1 or 0): {raw[:40]!r}")


def words(name: str, default: str) -> list[str]:
    """Return a comma-separated list without empty entries."""
    return [part.strip() for part in text(name, default).split(",") if part.strip()]
