"""A run of pytest that judges mutants: the servers and all imports stand, and each mutant gets a fork of the process.

First, every test runs once, and we note which lines of our files it runs. Then a fork per mutant gets the changed code
in all living functions, and runs tests of the changed line until one fails: those of its package first, then the
fastest. Tests that use servers of their own (`services`, `live_stack`) are left out, because their workers would run
the code as it is.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import random
import select
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from tests.mutants.making import ROOT, Mutant, code_of, files, mutants_of

LEFT_OUT_FIXTURES = {"services", "live_stack", "stores", "page", "browser"}
TESTED_IN = {"tokens": "registry"}  # the folder of a package's tests, where it has another name
TESTS_MAX = 80  # of one mutant: some lines are run by a thousand tests
CONTROLS = 5  # forks without a change: all of their tests must pass, or a kill would mean nothing


class Plugin:
    """Options in, results out: {mutant: "killed" | "timeout" | "survived" | "untested" | "unclear"}."""

    def __init__(self, *, sample: int, seed: int, seconds: float, only: str, map_file: str = "") -> None:
        self.sample, self.seed, self.only = sample, seed, only
        self._map = Path(map_file) if map_file else None
        self.deadline = time.monotonic() + seconds
        self.results: dict[Mutant, str] = {}
        self.total = 0
        self.problem = ""
        self._tests_of: dict[tuple[str, int], set[int]] = defaultdict(set)
        self._seconds: dict[int, float] = {}
        self._names: list[str] = []
        self._output = os.fdopen(os.dup(1), "w", buffering=1)  # pytest takes what is printed during its run

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judge mutants in place of running the tests."""
        from tests.plugin import SERVICES  # pytest loads it, before the settings of Django

        self._services = SERVICES
        items = [
            item
            for item in session.items
            if not LEFT_OUT_FIXTURES & set(getattr(item, "fixturenames", ())) and not item.get_closest_marker("long")
        ]
        self._names = [item.nodeid for item in items]
        self._say(f"Running {len(items)} tests once, to see which lines each of them runs ...")
        failed = self._read_map(session, items) if self._map and self._map.exists() else self._run_all(session, items)
        if failed:
            self.problem = f"These tests fail without a change: {', '.join(failed[:10])}"
            return True
        mutants = [mutant for path in files() for mutant in mutants_of(path) if self.only in mutant.path]
        self.total = len(mutants)
        if self.sample and self.sample < len(mutants):
            mutants = random.Random(self.seed).sample(mutants, self.sample)
        self._close_connections()
        tested = [mutant for mutant in mutants if self._tests(mutant)]
        for mutant in tested[:CONTROLS]:
            if self._fork(session, items, mutant, self._tests(mutant), code=None)[0] != "survived":
                self.problem = f"The tests of {mutant.name} fail in a fork without a change."
                return True
        for count, mutant in enumerate(mutants, 1):
            if time.monotonic() > self.deadline:
                self._say(f"Out of time after {count - 1} mutants.")
                break
            self.results[mutant] = self._judge(session, items, mutant)
            self._say(f"{count}/{len(mutants)} {self.results[mutant]}: {mutant.path}:{mutant.line} {mutant.change}")
        return True

    def _say(self, line: str) -> None:
        self._output.write(f"{line}\n")

    def _run_all(self, session: pytest.Session, items: list[pytest.Item]) -> list[str]:
        """Run every test once with its lines noted; return the names of failed tests."""
        failed = []
        watched = {str(path) for path in files()}
        for number, item in enumerate(items):
            lines: set[tuple[str, int]] = set()
            trace = functools.partial(_trace, watched, lines)
            sys.settrace(trace)
            threading.settrace(trace)
            started = time.monotonic()
            try:
                passed = _run(session, item)
            finally:
                sys.settrace(None)
                threading.settrace(None)
            self._seconds[number] = time.monotonic() - started
            for line in lines:
                self._tests_of[line].add(number)
            if not passed:
                failed.append(item.nodeid)
        if self._map and not failed:
            rows = [[path, line, sorted(tests)] for (path, line), tests in self._tests_of.items()]
            self._map.write_text(json.dumps({"seconds": self._seconds, "lines": rows}))
        return failed

    def _read_map(self, session: pytest.Session, items: list[pytest.Item]) -> list[str]:
        """Take the lines of each test from an earlier run with the same tests; run one, which sets the database up."""
        assert self._map is not None
        kept = json.loads(self._map.read_text())
        self._seconds = {int(number): seconds for number, seconds in kept["seconds"].items()}
        for path, line, tests in kept["lines"]:
            self._tests_of[(path, line)] = set(tests)
        first = next(item for item in items if "db" in getattr(item, "fixturenames", ()))
        return [] if _run(session, first) else [first.nodeid]

    def _tests(self, mutant: Mutant) -> list[int]:
        """Return the tests that run the changed line, those most likely to notice first, at most `TESTS_MAX`."""
        package = Path(mutant.path).parts[1]
        package = f"/{TESTED_IN.get(package, package)}/"
        found = self._tests_of.get((str(ROOT / mutant.path), mutant.line), set())
        return sorted(found, key=lambda each: (package not in self._names[each], self._seconds[each]))[:TESTS_MAX]

    def _judge(self, session: pytest.Session, items: list[pytest.Item], mutant: Mutant) -> str:
        """Return the verdict. A kill counts when the test that failed passes again without the change."""
        tests = self._tests(mutant)
        if not tests:
            return "untested"
        for _ in range(2):
            verdict, failed = self._fork(session, items, mutant, tests, code=code_of(mutant))
            if verdict != "killed" or self._fork(session, items, mutant, failed, code=None)[0] == "survived":
                return verdict
            self._empty_database()  # rows that an earlier fork left
        return "unclear"

    def _fork(
        self,
        session: pytest.Session,
        items: list[pytest.Item],
        mutant: Mutant,
        tests: list[int],
        *,
        code: CodeType | None,
    ) -> tuple[str, list[int]]:
        """Run tests in a fork; return "killed", "timeout" or "survived", and the test that failed."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            failed: int | None = tests[0]
            try:
                if code is not None:
                    change_living_functions(ROOT / mutant.path, code)
                for number in tests:
                    failed = number
                    if not _run(session, items[number]):
                        break
                else:
                    failed = None
            finally:
                os.write(writer, b"passed" if failed is None else str(failed).encode())
                os._exit(0)
        os.close(writer)
        limit_s = 10 + 5 * sum(self._seconds[number] for number in tests)
        ready, _, _ = select.select([reader], [], [], limit_s)
        answer = os.read(reader, 20) if ready else b""
        os.close(reader)
        if answer != b"passed":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not answer:
            self._empty_database()
            return "timeout", []
        return ("survived", []) if answer == b"passed" else ("killed", [int(answer)])

    def _empty_database(self) -> None:
        """Delete the rows of a fork that ended within a test."""
        if self._services.is_alive("postgres"):
            self._services.empty_database()
            self._close_connections()

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


def _trace(watched: set[str], lines: set[tuple[str, int]], frame: FrameType, event: str, argument: object) -> Any:
    path = frame.f_code.co_filename
    if path not in watched:
        return None

    def local(inner: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            lines.add((path, inner.f_lineno))
        return local

    return local


def change_living_functions(path: Path, code: CodeType) -> int:
    """Give every function of the file that lives in this process its changed code; return how many were changed."""
    old = compile(path.read_text(), str(path), "exec", dont_inherit=True)
    new_codes = {}
    for before, after in zip(_codes(old), _codes(code), strict=False):
        if before.co_qualname == after.co_qualname and before != after:
            new_codes[(before.co_qualname, before.co_firstlineno)] = after
    changed = 0
    # Not `isinstance`: it asks a weak proxy of another test, which may have lost its object.
    for function in [each for each in gc.get_objects() if issubclass(type(each), FunctionType)]:
        living = function.__code__
        after = new_codes.get((living.co_qualname, living.co_firstlineno))
        if after is not None and living.co_filename == str(path) and living.co_freevars == after.co_freevars:
            function.__code__ = after
            changed += 1
    return changed


def _codes(code: CodeType) -> list[CodeType]:
    found = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += [constant, *_codes(constant)]
    return found
