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

import pytest

ENOUGH_PERCENT = 85
TESTS = [
    "tests/unit/policy", "tests/unit/registry", "tests/unit/core", "tests/unit/accounts", "tests/integration/authority",
    "tests/integration/jobs", "tests/integration/promotion", "tests/integration/registry", "tests/integration/api",
    "tests/integration/test_authorization_matrix.py", "tests/integration/ingest/test_protection.py",
    "tests/integration/rebuild/test_waves.py", "tests/integration/rebuild/test_api.py",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Change the code a little, many times, and see that a test notices.")
    parser.add_argument("--sample", type=int, default=0, help="how many mutants, chosen by the seed; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60 * 24)
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="folders and files of tests, if not all that matter")
    parser.add_argument("--map", default="", help="a file for the lines that tests run; an earlier one is used again")
    given = parser.parse_args()

    from tests.mutants.plugin import Plugin

    plugin = Plugin(
        sample=given.sample, seed=given.seed, seconds=given.minutes * 60, only=given.only, map_file=given.map
    )  # fmt: skip
    pytest.main(
        [*given.tests, "-p", "no:randomly", "-p", "no:xdist", "-q", "--no-header", "-p", "no:logging"], plugins=[plugin]
    )
    if plugin.problem or not plugin.results:
        print(plugin.problem or "No mutant was judged.")
        return 2
    return report(plugin)


def report(plugin) -> int:
    """Print the rate and the survivors; return the exit code."""
    reasons = tomllib.loads(Path(__file__).with_name("survivors.toml").read_text())
    counts = Counter(plugin.results.values())
    killed = counts["killed"] + counts["timeout"]
    judged = len(plugin.results)
    print(f"\n{plugin.total} mutants, {judged} judged: {killed} killed ({counts['timeout']} by time), "
          f"{counts['survived']} survived, {counts['untested']} untested, {counts['unclear']} unclear.")  # fmt: skip
    for mutant, result in plugin.results.items():
        if result in ("survived", "untested", "unclear") and mutant.name not in reasons:
            print(f"{result}, not explained: {mutant.path}:{mutant.line} {mutant.name}")
    percent = 100 * killed / judged
    print(f"Killed: {percent:.1f} % (at least {ENOUGH_PERCENT} % are needed).")
    return 0 if percent >= ENOUGH_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
