"""`python tests/with_settings.py COMMAND ...`: run a command with settings that name no real server.

For what reads the settings but talks to nobody: the type checker, `makemigrations --check`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.services import Services

if __name__ == "__main__":
    services = Services()
    os.environ.update(services.environment())
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    code = os.spawnvp(os.P_WAIT, sys.argv[1], sys.argv[1:])
    services.stop()
    sys.exit(code)
