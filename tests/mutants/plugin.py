"""A run of pytest that judges mutants: the servers and all imports stand, and each mutant gets a fork of the process.

First, every test runs once without a change, and we note which statements of our files it runs; a test that fails is
left out and named. Then a fork per mutant gets the changed code in all living functions, opens a database connection of
its own, and runs tests of the changed statement until one fails: those that noticed other changes of the file first,
then those of its package, then the quickest. A fork without the change then runs the test that failed: if it fails
there too, it says nothing about the mutant and is left out. Tests that use servers of their own (`services`,
`live_stack`) never take part, because their workers would run the code as it is.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import hashlib
import importlib
import json
import os
import random
import select
import signal
import time
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from tests.mutants.making import RAN, ROOT, Mutant, code_of, files, mutants_of, statements_of, watched_code

LEFT_OUT_FIXTURES = {"services", "live_stack", "stores", "page", "browser"}
TESTED_IN = {"tokens": "registry"}  # the folder of a package's tests, where it has another name
TESTS_MAX = 250  # of one mutant: some statements are run by two thousand tests

Line = tuple[str, int]


class Plugin:
    """Options in, results out: {mutant: "killed" | "timeout" | "survived" | "untested"}."""

    def __init__(self, *, sample: int, seed: int, seconds: float, only: str, map_file: str = "") -> None:
        self.sample, self.seed, self.only = sample, seed, only
        self._map = Path(map_file) if map_file else None
        self.deadline = time.monotonic() + seconds
        self.results: dict[Mutant, str] = {}
        self.left_out: dict[str, str] = {}  # name of a test: why
        self.total = 0
        self._tests_of: dict[Line, set[int]] = defaultdict(set)
        self._seconds: dict[int, float] = {}
        self._kills: Counter[tuple[str, int]] = Counter()  # by file and test
        self._output = os.fdopen(os.dup(1), "w", buffering=1)  # pytest takes what is printed during its run

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judge mutants in place of running the tests."""
        from tests.plugin import SERVICES  # pytest loads it, before the settings of Django

        self._services = SERVICES
        self._session = session
        self._items = [
            item
            for item in session.items
            if not LEFT_OUT_FIXTURES & set(getattr(item, "fixturenames", ())) and not item.get_closest_marker("long")
        ]
        self._measure()
        mutants = [mutant for path in files() for mutant in mutants_of(path) if self.only in mutant.path]
        self.total = len(mutants)
        if self.sample and self.sample < len(mutants):
            mutants = random.Random(self.seed).sample(mutants, self.sample)
        self._close_connections()
        self._functions = living_functions()
        gc.collect()
        gc.freeze()  # the forks share this memory until something writes to it
        for count, mutant in enumerate(mutants, 1):
            if time.monotonic() > self.deadline:
                self._say(f"Out of time after {count - 1} mutants.")
                break
            started = time.monotonic()
            self.results[mutant] = self._judge(mutant)
            took = time.monotonic() - started
            self._say(f"{count}/{len(mutants)} {took:.1f} s {self.results[mutant]}: "
                      f"{mutant.path}:{mutant.line} {mutant.function}: {mutant.change}")  # fmt: skip
        return True

    def _say(self, line: str) -> None:
        self._output.write(f"{line}\n")

    def pytest_configure(self) -> None:
        """Hypothesis must neither keep what a mutant failed on, nor make it smaller, nor choose others in each fork."""
        import hypothesis

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutants", database=None, derandomize=True, phases=phases)
        hypothesis.settings.load_profile("mutants")

    def _measure(self) -> None:
        """Run every test once and note its statements and seconds; leave out those that fail."""
        kept = self._kept()
        unknown = [number for number, item in enumerate(self._items) if _key(item) not in kept["tests"]]
        if not unknown:  # one test sets the database up, if any needs it
            unknown = [n for n, item in enumerate(self._items) if "db" in getattr(item, "fixturenames", ())][:1]
        self._say(f"Running {len(unknown)} tests once, to see which statements each of them runs ...")
        ran: set[Line] = set()
        setattr(builtins, RAN, lambda path, line: ran.add((path, line)))
        for path in files():
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        functions = living_functions()
        for path in files():
            change_living_functions(path, watched_code(path), functions)
        for done, number in enumerate(unknown, 1):
            item = self._items[number]
            ran.clear()
            started = time.monotonic()
            passed = _run(self._session, item)
            seconds = time.monotonic() - started
            kept["tests"][_key(item)] = [passed, round(seconds, 3), sorted(ran)]
            if done % 100 == 0 or done == len(unknown):
                self._say(f"{done} ...")
                if self._map:
                    self._map.write_text(json.dumps(kept))
        functions = living_functions()
        for path in files():
            change_living_functions(path, None, functions)
        for number, item in enumerate(self._items):
            passed, self._seconds[number], lines = kept["tests"][_key(item)]
            if not passed:
                self._leave_out(number, "it fails without a change")
                continue
            for path, line in lines:
                self._tests_of[(path, line)].add(number)

    def _kept(self) -> dict[str, Any]:
        """Return what an earlier run with the same code measured, if there was one."""
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files())).hexdigest()
        if self._map and self._map.exists():
            kept = json.loads(self._map.read_text())
            if kept["code"] == digest:
                return kept  # type: ignore[no-any-return]  # JSON of our own
        return {"code": digest, "tests": {}}

    def _leave_out(self, number: int, why: str) -> None:
        name = self._items[number].nodeid
        if name not in self.left_out:
            self.left_out[name] = why
            self._say(f"Left out, because {why}: {name}")

    def _tests(self, mutant: Mutant) -> list[int]:
        """Return the tests that run the changed statement, those most likely to notice first, at most `TESTS_MAX`."""
        package = Path(mutant.path).parts[1]
        package = f"/{TESTED_IN.get(package, package)}/"
        path = ROOT / mutant.path
        found = self._tests_of.get((str(path), _statements(path).get(mutant.line, mutant.line)), set())

        def order(number: int) -> tuple[int, bool, float]:
            return -self._kills[(mutant.path, number)], package not in self._items[number].nodeid, self._seconds[number]

        return sorted((each for each in found if self._items[each].nodeid not in self.left_out), key=order)[:TESTS_MAX]

    def _judge(self, mutant: Mutant) -> str:
        """Return the verdict. A kill counts when the test that failed passes in a fork without the change."""
        code, tests, verdict = code_of(mutant), self._tests(mutant), "untested"
        while tests:
            ended, failed = self._fork(mutant, tests, code)
            if failed is None:
                return "survived"
            at = tests.index(failed)
            if ended == "timeout" and self._fork(mutant, [failed], code)[0] == "survived":
                at += 1  # the machine was busy: this test passes too
            elif self._fork(mutant, [failed], None)[0] == "survived":
                self._kills[(mutant.path, failed)] += 1
                return ended
            else:
                self._leave_out(failed, "it fails in a fork without a change")
            if at:
                verdict = "survived"
            tests = [each for each in tests[at:] if self._items[each].nodeid not in self.left_out]
        return verdict

    def _fork(self, mutant: Mutant, tests: list[int], code: CodeType | None) -> tuple[str, int | None]:
        """Run tests in a fork; return "killed", "timeout" or "survived", and the test that failed."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self._as_child(mutant, tests, code, writer)
        os.close(writer)
        verdict, at = "", 0
        while not verdict:
            limit_s = 15 + 10 * self._seconds[tests[min(at, len(tests) - 1)]]
            ready, _, _ = select.select([reader], [], [], limit_s)
            answer = os.read(reader, 1) if ready else b""
            if answer == b"+":
                at += 1
            else:
                verdict = {b"-": "killed", b".": "survived"}.get(answer, "timeout")
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if verdict == "survived":
            return verdict, None
        if self._services.is_alive("postgres") and (verdict == "timeout" or self._services.rows_left()):
            self._services.empty_database()
        self._close_connections()
        return verdict, tests[min(at, len(tests) - 1)]

    def _as_child(self, mutant: Mutant, tests: list[int], code: CodeType | None, writer: int) -> None:
        """Write "+" for each test that passed, then "-" for one that failed, or "." after the last; never returns."""
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            for process in self._services.processes.values():  # a fork cannot wait for its parent's children
                process.poll = lambda: None  # type: ignore[method-assign]  # replaced on purpose
            if code is not None:
                change_living_functions(ROOT / mutant.path, code, self._functions)
            for number in tests:
                if not _run(self._session, self._items[number]):
                    os.write(writer, b"-")
                    return
                os.write(writer, b"+")
            os.write(writer, b".")
        except BaseException:  # noqa: BLE001 -- a mutant may end the process in any way
            os.write(writer, b"-")
        finally:
            os._exit(0)

    def _close_connections(self) -> None:
        """A fork must not share a connection with this process."""
        from django.db import connections

        connections.close_all()
        if self._services._link is not None:
            self._services._link.close()
            self._services._link = None


class _NextItem:
    """Stands for the next test: only what belongs to the session stays set up."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session

    def listchain(self) -> list[Any]:
        return [self._session]


def _run(session: pytest.Session, item: pytest.Item) -> bool:
    """Run one test with its fixtures; return whether it passed."""
    from _pytest.runner import call_and_report

    passed = True
    if hasattr(item, "_request") and not item._request:
        item._initrequest()
    report = call_and_report(item, "setup", log=False)
    passed = report.passed
    if passed:
        passed = call_and_report(item, "call", log=False).passed
    after = call_and_report(item, "teardown", log=False, nextitem=_NextItem(session))
    if hasattr(item, "_request"):
        item._request = False
        item.funcargs = None
    return (passed or report.skipped) and after.passed


@cache
def _statements(path: Path) -> dict[int, int]:
    return statements_of(path)


@cache
def _text_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _key(item: pytest.Item) -> str:
    """Return the name of a test in the kept map: it changes with the text of the test's file."""
    return f"{item.nodeid} {_text_digest(item.path)}"


def living_functions() -> list[FunctionType]:
    """Return every function of our code that lives in this process."""
    # Not `isinstance`: it asks a weak proxy of another test, which may have lost its object.
    return [
        each
        for each in gc.get_objects()
        if issubclass(type(each), FunctionType) and each.__code__.co_filename.startswith(str(ROOT / "lifecycle"))
    ]


def change_living_functions(path: Path, code: CodeType | None, functions: list[FunctionType]) -> int:
    """Give the functions the code of the changed module, or of the file as it is; return how many changed."""
    old = compile(path.read_text(), str(path), "exec", dont_inherit=True)
    codes = _codes(code or old)
    times = Counter(
        (each.co_qualname, each.co_firstlineno) for each in codes
    )  # two lambdas in one line: not known apart
    new_codes = {key: each for each in codes if times[key := (each.co_qualname, each.co_firstlineno)] == 1}
    changed = 0
    for function in functions:
        living = function.__code__
        if living.co_filename != str(path):
            continue
        after = new_codes.get((living.co_qualname, living.co_firstlineno))
        if after is not None and living.co_freevars == after.co_freevars and living != after:
            function.__code__ = after
            changed += 1
    return changed


def _codes(code: CodeType) -> list[CodeType]:
    found = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += [constant, *_codes(constant)]
    return found
