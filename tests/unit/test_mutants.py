"""The changes that `make mutants` tries, and that they reach functions which other modules have imported."""

from __future__ import annotations

import builtins
import importlib.util
import sys
import tomllib

import pytest

from tests.mutants.__main__ import SURVIVORS, TESTS, TESTS_LEFT_OUT
from tests.mutants.making import RAN, ROOT, changes_in, files, mutants_of, statements_of, watched_code
from tests.mutants.plugin import change_living_functions

CODE = """\
def is_adult(age, country="x"):
    if age >= 18 and country:
        return True
    raise ValueError(f"{age} < 18")


class Door:
    def open(self):
        log.info("opened", count=1)
        save(self)
        return [each for each in rows.filter(a=1, b=2) if each]
"""


def test_changes_of_a_small_file():
    assert changes_in(CODE) == [
        "if age >= 18 and country => if True", "if age >= 18 and country => if False",
        "age >= 18 and country => without age >= 18", "age >= 18 and country => without country",
        "age >= 18 => age > 18", "18 => 19", "return True => return None", "True => False",
        "raise ValueError(f'{age} < 18') => nothing",
        "save(self) => nothing", "return [each for each in rows.filter(a=1, b=2) if each] => return None",
        "for ... if each => no condition", "rows.filter(a=1, b=2) => without a=1",
        "rows.filter(a=1, b=2) => without b=2", "1 => 2", "2 => 3",
    ]  # fmt: skip


def test_every_package_has_mutants():
    counts = [len(mutants_of(path)) for path in files()]
    assert sum(counts) > 1500


@pytest.mark.parametrize("age", [17, 18])
def test_living_functions_change(tmp_path, age):
    path = tmp_path / "small_module.py"
    path.write_text("def is_adult(age):\n    return age >= 18\n\n\nALSO = [is_adult]\n")
    spec = importlib.util.spec_from_file_location("small_module", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.pop("small_module", None)
    spec.loader.exec_module(module)
    imported = module.ALSO[0]
    assert imported(age) == (age == 18)
    changed = compile(path.read_text().replace(">=", "<"), str(path), "exec", dont_inherit=True)
    assert change_living_functions(path, changed, [imported]) == 1
    assert imported(age) == (age != 18)
    assert change_living_functions(path, None, [imported]) == 1
    assert imported(age) == (age == 18)


BRANCHES = """\
def size(text):
    if len(
        text
    ) > 3:
        return "long"
    elif text:
        return "short"
    return [
        each
        for each in text
    ]
"""


@pytest.mark.parametrize(("text", "lines"), [("abcd", {2, 5}), ("a", {2, 6, 7}), ("", {2, 6, 8})])
def test_statements_that_ran_are_noted(tmp_path, monkeypatch, text, lines):
    path = tmp_path / "branches.py"
    path.write_text(BRANCHES)
    ran = set()
    monkeypatch.setattr(builtins, RAN, lambda path, line: ran.add(line), raising=False)
    names = {}
    exec(watched_code(path), names)
    names["size"](text)
    assert ran == lines
    assert [statements_of(path)[line] for line in (2, 3, 5, 6, 7, 9, 10)] == [2, 2, 5, 6, 7, 8, 8]


def test_explained_survivors_are_changes_that_exist():
    names = {mutant.name for path in files() for mutant in mutants_of(path)}
    assert set(tomllib.loads(SURVIVORS.read_text())) <= names


def test_named_tests_exist():
    assert [path for path in [*TESTS, *TESTS_LEFT_OUT] if not (ROOT / path).exists()] == []
