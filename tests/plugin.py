"""Loaded before Django's settings (`-p tests.plugin`): names the test servers in the environment."""

from __future__ import annotations

import os

from tests.services import Services

SERVICES = Services()
for _name in ("DATABASE_URL_FILE", "SECRET_KEY_FILE"):
    os.environ.pop(_name, None)
os.environ.update(SERVICES.environment())
