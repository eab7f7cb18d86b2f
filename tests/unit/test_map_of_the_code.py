"""CONTRIBUTING.md describes each package with the first line of its docstring."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_LINE = {"lifecycle/management", "lifecycle/migrations"}
PACKAGES = sorted(
    str(file.parent.relative_to(ROOT))
    for pattern in ("accounts/__init__.py", "config/__init__.py", "config/*/__init__.py", "lifecycle/*/__init__.py")
    for file in ROOT.glob(pattern)
)


@pytest.mark.parametrize("package", [name for name in PACKAGES if name not in NO_LINE])
def test_map_has_first_line_of_package_docstring(package):
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
    assert docstring, f"{package} has no docstring"
    assert f"| `{package}/` | {docstring.splitlines()[0]} |" in (ROOT / "CONTRIBUTING.md").read_text()
