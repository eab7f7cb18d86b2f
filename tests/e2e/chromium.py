"""The browser of these tests, and how to sign in with it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=20_000)  # milliseconds; a busy machine answers late

NEEDS_CHROMIUM = pytest.mark.skipif(
    not os.path.exists(CHROMIUM), reason="needs Chromium (make system, or CHROMIUM=path)"
)

# Every page in each theme and width. Each run has both of each; the other two pairs take minutes (`make test-long`).
LOOKS = [
    ("light", 1440), ("dark", 375),
    pytest.param("dark", 1440, marks=pytest.mark.long), pytest.param("light", 375, marks=pytest.mark.long),
]  # fmt: skip


def signed_in(browser: Browser, base: str, *, theme: Any = "light", width: int = 1440, script: bool = True) -> Page:
    page = browser.new_context(
        color_scheme=theme, viewport={"width": width, "height": 900}, java_script_enabled=script
    ).new_page()
    page.goto(base + "/accounts/sign-in/")
    page.fill("#id_login", "shop-dev")
    page.fill("#id_password", "dock-side-pass")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "sign-in" not in url)
    return page
