"""Rules for every Python file, such as: a silenced check has a reason, and browser tests wait."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOQA = re.compile(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* -- \w.*\w")
TYPE_IGNORE = re.compile(r"# type: ignore\[[a-z-]+(, [a-z-]+)*\]  # \w.*\w")


@cache
def python_files() -> list[Path]:
    """Return the Python files that git tracks."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def without_reason(source: str) -> list[int]:
    """Return the lines that silence a check without a code, or without a reason after it."""
    return [
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
        and (
            (re.search(r"\bnoqa\b", token.string) and not NOQA.search(token.string))
            or (re.search(r"\btype:\s*ignore\b", token.string) and not TYPE_IGNORE.search(token.string))
        )
    ]


# Modules whose reading runs what it reads. Tests plant pickles to show that we read none.
RUNS_WHAT_IT_READS = re.compile(r"^\s*(?:import|from)\s+(?:pickle|marshal|shelve|dill|joblib|cloudpickle)\b", re.M)


def test_no_code_of_ours_reads_pickles() -> None:
    own = [path for path in python_files() if not path.is_relative_to(ROOT / "tests")]
    assert len(own) > 200
    assert [path for path in own if RUNS_WHAT_IT_READS.search(path.read_text())] == []
    assert RUNS_WHAT_IT_READS.search("x = 1\nfrom pickle import loads\n")


# A path that begins at the root is one of the system, or of nothing. Data beside a checkout is found from the checkout.
OF_THIS_MACHINE = re.compile(r"""Path\(f?["']/(?!(?:proc|dev|usr|nonexistent|x)\b|["'])""")


def test_tests_find_data_from_the_checkout_and_not_from_the_root() -> None:
    tests = [
        path for path in python_files() if path.is_relative_to(ROOT / "tests") and path.name != Path(__file__).name
    ]
    assert [path for path in tests if OF_THIS_MACHINE.search(path.read_text())] == []
    assert OF_THIS_MACHINE.search('DATA = Path("/srv/shared/data")')
    assert not OF_THIS_MACHINE.search('Path("/proc/self/fd"), Path("/"), Path("/usr/lib")')


def test_every_silenced_check_has_a_reason() -> None:
    found = {path: without_reason(path.read_text()) for path in python_files()}
    lines = [f"{path.relative_to(ROOT)}:{line}" for path, numbers in found.items() for line in numbers]
    assert lines == [], "write `# noqa: CODE -- reason` or `# type: ignore[code]  # reason`"


@pytest.mark.parametrize(
    ("line", "is_accepted"),
    [
        ("x = 1  # noqa: E501 -- a table", True),
        ("x = 1  # noqa: E501, S101 -- a table", True),
        ("x = 1  # type: ignore[misc]  # no type information", True),
        ("x = 1  # type: ignore[arg-type, misc]  # no type information", True),
        ("x = '# noqa'  # text, not a comment", True),
        ("x = 1  # noqa", False),
        ("x = 1  # noqa: E501", False),
        ("x = 1  # noqa: E501 --", False),
        ("x = 1  # noqa: E501 a table", False),
        ("# ruff: noqa", False),
        ("x = 1  # type: ignore", False),
        ("x = 1  # type: ignore[misc]", False),
        ("x = 1  # type: ignore[misc] no type information", False),
    ],
)
def test_suppression_needs_code_and_reason(line: str, is_accepted: bool) -> None:
    assert (without_reason(line + "\n") == []) is is_accepted


def fixtures_in(tree: ast.Module) -> set[str]:
    """Return the names of the fixtures that a module defines."""
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any("fixture" in ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list)
    }


def imported_fixtures(tree: ast.Module, fixtures: dict[str, set[str]]) -> list[str]:
    """Return the fixtures that a module imports by name; `fixtures` has those of each module."""
    return [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in fixtures.get(node.module or "", set()) or (node.module or "").endswith(".conftest")
    ]


def test_no_test_module_imports_a_fixture() -> None:
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
        for path in python_files()
        if path.is_relative_to(ROOT / "tests")
    }
    fixtures = {module: fixtures_in(tree) for module, tree in trees.items()}
    assert "dock" in fixtures["tests.integration.conftest"]
    found = {module: imported_fixtures(tree, fixtures) for module, tree in trees.items()}
    assert {module: names for module, names in found.items() if names} == {}, "put shared fixtures into a conftest.py"


def test_imported_fixture_is_found() -> None:
    fixtures = {
        "tests.a": fixtures_in(ast.parse("@pytest.fixture(scope='session')\ndef dock(): ...\ndef helper(): ..."))
    }
    assert fixtures == {"tests.a": {"dock"}}
    assert imported_fixtures(ast.parse("from tests.a import dock, helper"), fixtures) == ["dock"]
    assert imported_fixtures(ast.parse("from tests.conftest import helper"), fixtures) == ["helper"]


# What these return is true for one moment; a page may be a moment late. `expect(...)` of Playwright waits.
OF_ONE_MOMENT = {
    "is_visible", "is_hidden", "is_checked", "is_enabled", "is_disabled", "inner_text", "all_inner_texts",
    "text_content", "get_attribute", "input_value", "count", "evaluate",
}  # fmt: skip


def impatient(source: str) -> list[int]:
    """Return the lines that assert what a page shows at one moment, or leave it before a click was answered."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            text = ast.unparse(node)
            names = {name.attr for name in ast.walk(node) if isinstance(name, ast.Attribute)}
            if names & OF_ONE_MOMENT and ".objects" not in text:
                found.append(node.lineno)
        body = getattr(node, "body", None)
        for first, second in pairwise(body if isinstance(body, list) else []):
            if ast.unparse(first).endswith(".click()") and ".goto(" in ast.unparse(second).partition("\n")[0]:
                found.append(second.lineno)
    return sorted(found)


def test_browser_tests_wait_for_what_they_expect() -> None:
    found = {path.name: impatient(path.read_text()) for path in (ROOT / "tests/e2e").rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}, "use `expect(...)` of Playwright"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("assert page.get_by_role('alert').is_visible()", [1]),
        ("assert row.count() == 1", [1]),
        ("button.click()\npage.goto('/x/')", [2]),
        ("assert InboxItem.objects.count() == 1", []),
        ("expect(row).to_have_count(1)", []),
        ("button.click()\nexpect(row).to_have_count(1)\npage.goto('/x/')", []),
    ],
)
def test_impatient_line_is_found(source: str, lines: list[int]) -> None:
    assert impatient(source) == lines
