"""CONTRIBUTING.md says of each package what the package says of itself."""

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
def test_the_map_has_the_packages_own_sentence(package):
    about = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
    assert about, f"{package} does not say what it is"
    assert f"| `{package}/` | {about.splitlines()[0]} |" in (ROOT / "CONTRIBUTING.md").read_text()
