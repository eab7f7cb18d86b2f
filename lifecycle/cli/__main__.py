"""`python -m lifecycle.cli`."""

from __future__ import annotations

import sys

from lifecycle.cli.main import main

sys.exit(main())
