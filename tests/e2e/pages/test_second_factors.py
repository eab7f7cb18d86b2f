"""Passkeys in a real browser, with Chromium's virtual authenticator, under the production policy for scripts."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.chromium import NEEDS_CHROMIUM, signed_in

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]


@pytest.fixture(autouse=True)
def _public(settings: Any, live_server: Any) -> None:
    settings.PUBLIC_URL = live_server.url  # passkeys are for exactly this origin


def with_authenticator(page: Page) -> Page:
    """Give the page a security key that verifies its user, as a telephone or a laptop does."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
        "isUserVerified": True, "automaticPresenceSimulation": True,
    }  # fmt: skip
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return page


def test_passkey_is_made_signs_in_and_is_removed(browser: Browser, live_server: Any) -> None:
    page = with_authenticator(signed_in(browser, live_server.url))
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(live_server.url + "/account/security/passkeys/new/")
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Create passkey").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    expect(page.get_by_role("row", name="laptop")).to_be_visible()

    page.get_by_role("button", name="user menu").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(live_server.url + "/accounts/sign-in/?next=/account/security/")
    page.fill("#id_login", "shop-dev")
    page.fill("#id_password", "dock-side-pass")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Second factor")).to_be_visible()
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("heading", name="Sign-in and sessions")).to_be_visible()

    page.get_by_role("link", name="Remove the passkey laptop").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("Passkey laptop removed.")).to_be_visible()
    expect(page.get_by_text("You sign in with your password alone.")).to_be_visible()
    assert problems == []
