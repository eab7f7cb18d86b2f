"""The programs of `deploy/agent`, which are no package: each is one file that people copy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

_FOLDER: Final = Path(__file__).resolve().parent.parent / "deploy" / "agent"
AGENT: Final = _FOLDER / "agent.py"
HOST: Final = _FOLDER / "host.py"


def as_module(program: Path) -> ModuleType:
    """Return the program as a new module."""
    found = importlib.util.spec_from_file_location(f"reporter_{program.stem}", program)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
