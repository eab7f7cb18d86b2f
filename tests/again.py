"""`make test-again`: runs what failed in the last `make test` once more, alone.

A failure that comes again is a failure. One that does not is named as a warning, so that somebody mends the test: it
depends on how busy the machine is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 5  # more than this fail for one cause, which is no accident of time


def failed(root: Path) -> list[str]:
    """Return the tests that failed in the last run; empty if none did, or if that run did not reach its end.

    `make test` writes `.pytest_cache/exit`: 1 means that all tests ran and some failed. Any other code is an error of
    the run itself.
    """
    cache = root / ".pytest_cache"
    code, names = cache / "exit", cache / "v" / "cache" / "lastfailed"
    if not code.exists() or code.read_text().strip() != "1" or not names.exists():
        return []
    return sorted(json.loads(names.read_text()))


def again(root: Path) -> int:
    """Return 0 if all of them pass now, and 1 if one fails again, if there are too many, or if none is known."""
    names = failed(root)
    if not 0 < len(names) <= MOST:
        sys.stderr.write(f"Nothing runs again: {len(names)} failed tests are known, and 1 to {MOST} can run again.\n")
        return 1
    run = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:randomly", *names], cwd=root, check=False)
    if run.returncode:
        return 1
    for name in names:
        sys.stderr.write(f"WARNING: failed beside other tests, passed alone: {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(again(ROOT))
