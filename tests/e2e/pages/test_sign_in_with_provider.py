"""Sign-in with a real provider in a real browser: npm's `oidc-provider`, started here, and Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from accounts.models import Group, GroupMember, Identity, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority import services as authority
from lifecycle.authority.models import RoleGrant
from lifecycle.sso import services
from lifecycle.sso.services import NewRule
from tests.e2e.chromium import ARGUMENTS, CHROMIUM, NEEDS_CHROMIUM
from tests.factories import dock
from tests.factories.people import person

ROOT = Path(__file__).parents[3]
# A folder with npm's oidc-provider: `npm ci` makes the default one.
MODULES = Path(os.environ.get("OIDC_NODE_MODULES", str(ROOT / "node_modules")))
pytestmark = [
    pytest.mark.django_db(transaction=True),
    NEEDS_CHROMIUM,
    pytest.mark.skipif(
        shutil.which("node") is None or not (MODULES / "oidc-provider").is_dir(),
        reason="needs node and npm's oidc-provider (npm ci, or OIDC_NODE_MODULES=folder)",
    ),
]
SECRET = "a secret of the test: with + signs"
KIM = {
    "name": "Kim Lee",
    "preferred_username": "Kim.Lee",
    "email": "kim@example.com",
    "email_verified": True,
    "groups": ["dev", "shop-owners"],
}


class RealProvider:
    """The running program; `knows` decides who can sign in, with which claims."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.issuer = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def knows(self, **people: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(people) + "\n")
        self._process.stdin.flush()
        assert self._line() == "known"


@pytest.fixture
def place(transactional_db: None, live_server: Any, settings: Any) -> Iterator[tuple[RealProvider, str]]:
    """The provider, which our server knows as corp, with rules; and the address of our server."""
    settings.SIGN_IN_ALLOW = ["127.0.0.1"]
    settings.PUBLIC_URL = live_server.url
    callback = f"{live_server.url}/sso/corp/callback/"
    program = [shutil.which("node") or "node", str(ROOT / "tests/programs/oidc_provider.mjs"), str(MODULES.parent)]
    with subprocess.Popen(
        [*program, callback], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            real = RealProvider(process)
            root = person("root")
            User.objects.filter(pk=root.pk).update(is_superuser=True)
            root.refresh_from_db()
            dock.team("shop")
            authority.create_group(actor=root, slug="developers", source=Group.Source.SSO)
            services.create_provider(
                actor=root, slug="corp", name="Corp", issuer=real.issuer, client_id="gravingdock", client_secret=SECRET,
                scopes="openid profile email groups", creates_accounts=True,
            )  # fmt: skip
            services.create_rule("corp", NewRule(claim="groups", value="dev", group="developers"), actor=root)
            owners = NewRule(claim="groups", value="*-owners", match="glob", role="owner", team="shop")
            services.create_rule("corp", owners, actor=root)
            yield real, live_server.url
        finally:
            process.terminate()


@pytest.fixture
def browser(place: Any) -> Iterator[Browser]:
    """A browser; rows are made before it starts, since its event loop keeps Django from the database."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


def come_in(page: Page, base: str, sub: str = "u-1") -> None:
    """Go to the provider from our sign-in page, sign in there, and consent."""
    page.goto(base + "/accounts/sign-in/")
    page.get_by_role("link", name="Sign in with Corp").click()
    expect(page.locator("input[name=login]")).to_be_visible()
    page.fill("input[name=login]", sub)
    page.fill("input[name=password]", "any")
    page.locator("button[type=submit]").click()
    expect(page.get_by_role("button", name=re.compile("continue", re.IGNORECASE))).to_be_visible()
    page.get_by_role("button", name=re.compile("continue", re.IGNORECASE)).click()
    page.wait_for_url(base + "/**")


def asked_of_the_database(ask: Any) -> Any:
    """Run queries in a thread of their own: the event loop of the browser keeps Django from the database here."""
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connections

    def run() -> Any:
        try:
            return ask()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def state() -> dict[str, Any]:
    user = User.objects.filter(username="kim-lee").first()
    return {
        "user": user and (user.full_name, user.email, user.email_verified_at is not None, user.has_usable_password()),
        "groups": sorted(GroupMember.objects.filter(user=user).values_list("group__slug", "provider")) if user else [],
        "roles": sorted(RoleGrant.objects.filter(user=user).values_list("role__slug", "team__slug", "provider")),
        "identities": Identity.objects.filter(user=user).count() if user else 0,
    }


def actions(since: int = 0) -> list[str]:
    return list(AuditEvent.objects.filter(pk__gt=since).order_by("pk").values_list("action", flat=True))


def last_event() -> int:
    return AuditEvent.objects.latest("pk").pk


def test_person_comes_in_gets_groups_and_loses_them_at_the_next_sign_in(browser: Browser, place: Any) -> None:
    real, base = place
    real.knows(**{"u-1": KIM})
    before = asked_of_the_database(last_event)
    page = browser.new_context().new_page()
    come_in(page, base)
    expect(page).not_to_have_url(re.compile("sso"))
    page.goto(base + "/account/identities/")
    expect(page.get_by_role("row", name=re.compile("Corp"))).to_be_visible()
    assert asked_of_the_database(state) == {
        "user": ("Kim Lee", "kim@example.com", True, False),
        "groups": [("developers", "corp")],
        "roles": [("owner", "shop", "corp")],
        "identities": 1,
    }
    assert asked_of_the_database(lambda: actions(before)) == [
        "user.created", "identity.linked", "group.member_added", "grant.created", "session.started",
    ]  # fmt: skip
    # Fewer groups at the next sign-in: what they gave ends, each with an event.
    real.knows(**{"u-1": {**KIM, "groups": ["dev"]}})
    before = asked_of_the_database(last_event)
    come_in(browser.new_context().new_page(), base)
    found = asked_of_the_database(state)
    assert (found["groups"], found["roles"]) == ([("developers", "corp")], [])
    assert asked_of_the_database(lambda: actions(before)) == ["grant.revoked", "session.started"]
    # No claim of groups is an error, takes the rest, and nobody comes in.
    real.knows(**{"u-1": {name: value for name, value in KIM.items() if name != "groups"}})
    page = browser.new_context().new_page()
    before = asked_of_the_database(last_event)
    come_in(page, base)
    expect(page.get_by_role("alert")).to_contain_text("The claim groups is missing")
    page.goto(base + "/account/")
    expect(page).to_have_url(re.compile("sign-in"))
    assert asked_of_the_database(state)["groups"] == []
    assert asked_of_the_database(lambda: actions(before)) == ["group.member_removed", "sign_in.refused"]


def test_deactivated_at_the_provider_or_here_does_not_come_in(browser: Browser, place: Any) -> None:
    real, base = place
    real.knows(**{"u-1": KIM, "u-2": {**KIM, "preferred_username": "lee", "email": "lee@example.com"}})
    page = browser.new_context().new_page()
    come_in(page, base)
    expect(page).not_to_have_url(re.compile("sso"))
    real.knows(**{"u-2": {**KIM, "preferred_username": "lee", "email": "lee@example.com"}})
    page = browser.new_context().new_page()
    page.goto(base + "/sso/corp/start/")
    page.fill("input[name=login]", "u-1")
    page.fill("input[name=password]", "any")
    page.locator("button[type=submit]").click()
    page.wait_for_load_state()
    page.goto(base + "/account/")
    expect(page).to_have_url(re.compile("accounts/sign-in"))
    asked_of_the_database(lambda: User.objects.filter(username="lee").count())
    come_in(browser.new_context().new_page(), base, "u-2")
    asked_of_the_database(lambda: User.objects.filter(username="lee").update(is_active=False))
    page = browser.new_context().new_page()
    come_in(page, base, "u-2")
    expect(page.get_by_role("alert")).to_contain_text("deactivated")


def test_code_and_cookie_work_once_and_only_in_their_browser(browser: Browser, place: Any) -> None:
    real, base = place
    real.knows(**{"u-1": KIM})
    context = browser.new_context()
    page = context.new_page()
    answers: list[str] = []
    kept: list[Any] = []

    def watch(request: Any) -> None:
        if "/sso/corp/callback/" in request.url:
            answers.append(request.url)
            kept.extend(context.cookies(request.url))

    page.on("request", watch)
    come_in(page, base)
    expect(page).not_to_have_url(re.compile("sso"))
    assert len(answers) == 1
    other = browser.new_context()
    stranger = other.new_page()
    stranger.goto(answers[0])  # a victim of an injected answer
    expect(stranger.get_by_role("alert")).to_contain_text("started in another browser")
    thief = browser.new_context()
    thief.add_cookies([cookie for cookie in kept if cookie["name"].startswith("gd_sso_")])
    stolen = thief.new_page()
    stolen.goto(answers[0])  # the code a second time, even with the cookie
    expect(stolen.get_by_role("alert")).to_contain_text("did not prove who you are")
    stolen.goto(base + "/account/")
    expect(stolen).to_have_url(re.compile("accounts/sign-in"))
    why = asked_of_the_database(lambda: AuditEvent.objects.get(action="sign_in.refused").details["why"])
    assert why == "The provider did not take the code."


@pytest.mark.parametrize("verified", [True, False])
def test_mail_of_an_account_never_lets_in(browser: Browser, place: Any, verified: bool) -> None:
    real, base = place
    asked_of_the_database(lambda: User.objects.create(username="old", email="Kim@example.com"))
    real.knows(**{"u-1": {**KIM, "email_verified": verified}})
    page = browser.new_context().new_page()
    come_in(page, base)
    found = asked_of_the_database(state)
    if verified:
        expect(page.get_by_role("alert")).to_contain_text("link this provider on your account page")
        assert found["user"] is None
    else:
        expect(page).not_to_have_url(re.compile("sso"))
        assert found["user"][1:3] == ("", False)  # an unverified mail is not stored
    assert asked_of_the_database(lambda: Identity.objects.filter(user__username="old").count()) == 0


def test_person_links_an_identity_by_an_act_of_their_own(browser: Browser, place: Any) -> None:
    real, base = place

    def account() -> None:
        user = User.objects.create(username="shop-dev", email="kim@example.com")
        user.set_password("dock-side-pass")
        user.save()

    asked_of_the_database(account)
    real.knows(**{"u-1": KIM})
    page = browser.new_context().new_page()
    page.goto(base + "/accounts/sign-in/")
    page.fill("#id_login", "shop-dev")
    page.fill("#id_password", "dock-side-pass")
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(lambda url: "sign-in" not in url)
    page.goto(base + "/account/identities/")
    page.get_by_role("link", name="Link Corp").click()
    page.fill("input[name=login]", "u-1")
    page.fill("input[name=password]", "any")
    page.locator("button[type=submit]").click()
    page.get_by_role("button", name=re.compile("continue", re.IGNORECASE)).click()
    expect(page.get_by_role("heading", name=re.compile("Link Kim.Lee of Corp"))).to_be_visible()

    def linked() -> int:
        return Identity.objects.filter(user__username="shop-dev", ended_at=None).count()

    assert asked_of_the_database(linked) == 0  # not before the click
    page.fill("#password", "dock-side-pass")
    page.get_by_role("button", name="Link").click()
    expect(page.get_by_text("You can now sign in with Corp.")).to_be_visible()
    assert asked_of_the_database(linked) == 1
    other = browser.new_context().new_page()
    come_in(other, base)
    expect(other).not_to_have_url(re.compile("sso"))
    assert asked_of_the_database(lambda: User.objects.filter(username="kim-lee").exists()) is False
