"""The version of Gravingdock."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"


@cache
def version() -> str:
    """Return the version: of the checkout that runs, else of the installed package; "unknown" without both."""
    if _PROJECT.is_file():
        found = tomllib.loads(_PROJECT.read_text("utf-8")).get("project", {}).get("version")
        if isinstance(found, str):
            return found
    try:
        return metadata.version("gravingdock")
    except metadata.PackageNotFoundError:
        return "unknown"
