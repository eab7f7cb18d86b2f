"""Run mutants: `python -m tests.mutants [--sample N] [--seed N] [--minutes N] [--only TEXT]`.

Exits with 1 when fewer than 85 % of the judged mutants were killed. Prints each survivor that `survivors.toml` does not
explain.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mutants.making import Mutant

if TYPE_CHECKING:
    from tests.mutants.plugin import Plugin

SURVIVORS = Path(__file__).with_name("survivors.toml")
ENOUGH_PERCENT = 85
COLUMNS = ("judged", "killed", "by time", "survived", "explained", "untested", "rate")
TESTS = [
    "tests/unit/policy", "tests/unit/registry", "tests/unit/core", "tests/unit/accounts", "tests/integration/authority",
    "tests/integration/jobs", "tests/integration/promotion", "tests/integration/registry", "tests/integration/api",
    "tests/integration/pages", "tests/integration/audit", "tests/integration/core",
    "tests/integration/test_authorization_matrix.py", "tests/integration/test_protections.py",
    "tests/integration/test_query_counts.py", "tests/integration/ingest/test_protection.py",
    "tests/integration/ingest/test_hook.py", "tests/integration/ingest/test_managing.py",
    "tests/integration/rebuild/test_waves.py", "tests/integration/rebuild/test_api.py",
    "tests/integration/rebuild/test_pages.py", "tests/integration/rebuild/test_recipe_pages.py",
    "tests/integration/rebuild/test_builder_switch.py",
    "tests/integration/evidence/test_judgement.py", "tests/integration/search/test_search.py",
    "tests/integration/policies", "tests/integration/quarantine", "tests/integration/cli",
]  # fmt: skip
# They send random requests to every route, slowly, and judge only what any answer must be.
TESTS_LEFT_OUT = ["tests/integration/api/test_schemathesis.py", "tests/integration/pages/test_odd_addresses.py"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Change the code a little, many times, and see that a test notices.")
    parser.add_argument("--sample", type=int, default=0, help="how many mutants, chosen by the seed; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60 * 24)
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="folders and files of tests, if not all that matter")
    parser.add_argument("--map", default="", help="a file for the lines that tests run; an earlier one is used again")
    given = parser.parse_args()

    from tests.mutants.plugin import Plugin  # it needs the settings that pytest names, when it starts

    plugin = Plugin(
        sample=given.sample, seed=given.seed, seconds=given.minutes * 60, only=given.only, map_file=given.map
    )  # fmt: skip
    ignored = [f"--ignore={path}" for path in TESTS_LEFT_OUT]
    options = ["-p", "no:randomly", "-p", "no:xdist", "-p", "no:logging", "-q", "--no-header", "--tb=native"]
    pytest.main([*given.tests, *options, *ignored], plugins=[plugin])
    if not plugin.results:
        print("No mutant was judged.")
        return 2
    return report(plugin)


def report(plugin: Plugin) -> int:
    """Print the rates and the survivors; return the exit code."""
    reasons = tomllib.loads(SURVIVORS.read_text())
    for mutant, result in plugin.results.items():
        if result in ("survived", "untested") and mutant.name not in reasons:
            print(f"{result}, not explained: {mutant.path}:{mutant.line} {mutant.name}")
    print(f"\n{'package':<12}" + "".join(f"{title:>10}" for title in COLUMNS))
    packages = sorted({mutant.package for mutant in plugin.results})
    for package in [*packages, "all"]:
        print(_row(package, {m: r for m, r in plugin.results.items() if package in (m.package, "all")}, reasons))
    print(f"{len(plugin.results)} of {plugin.total} mutants judged. {len(plugin.left_out)} tests left out.")
    percent = _percent(plugin.results)
    print(f"Killed: {percent:.1f} % (at least {ENOUGH_PERCENT} % are needed).")
    return 0 if percent >= ENOUGH_PERCENT else 1


def _row(name: str, results: dict[Mutant, str], reasons: dict[str, str]) -> str:
    counts = Counter(results.values())
    explained = sum(1 for mutant, result in results.items() if result == "survived" and mutant.name in reasons)
    killed = counts["killed"] + counts["timeout"]
    numbers = (len(results), killed, counts["timeout"], counts["survived"], explained, counts["untested"])
    return f"{name:<12}" + "".join(f"{number:>10}" for number in numbers) + f"{_percent(results):>8.1f} %"


def _percent(results: dict[Mutant, str]) -> float:
    return 100 * sum(1 for result in results.values() if result in ("killed", "timeout")) / len(results)


if __name__ == "__main__":
    sys.exit(main())
