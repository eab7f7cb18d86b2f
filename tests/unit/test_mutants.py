"""The changes that `make mutants` tries, and that they reach functions which other modules have imported."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.mutants.making import changes_in, files, mutants_of
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
    assert change_living_functions(path, changed) == 1
    assert imported(age) == (age != 18)
