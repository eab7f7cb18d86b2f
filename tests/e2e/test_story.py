"""The main job by clicking, on real images: push, look, ask, approve, carry out; then the base is patched, and again.

Everything is real: Debian from the mirror, buildah, skopeo, the registry, syft, the workers, the shipped advisories.
What a browser cannot do (build and push) is done as its owner would from a terminal; all else is clicked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from accounts.queries import system_user
from lifecycle.advisories.services import sync_feed
from lifecycle.demo import cast, images
from lifecycle.demo.building import Builder, Built
from lifecycle.demo.cast import Account
from lifecycle.demo.images import Product
from lifecycle.demo.server import Server
from lifecycle.demo.story import ADVISORIES
from lifecycle.demo.telling import Teller
from lifecycle.registry.clients import client_for
from lifecycle.registry.services import ensure_managed_registry
from tests.e2e.chromium import ARGUMENTS, CHROMIUM, NEEDS_CHROMIUM
from tests.services import Services

pytestmark = [
    pytest.mark.timeout(600),
    NEEDS_CHROMIUM,
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed: make system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the embedded builder needs root for its namespaces"),
]

# Installs a library that Debian has fixed since its first release: a rebuild on the patched base brings the fix.
TOOLS = replace(
    images.API,
    title="The shop's tools",
    containerfile=f"FROM {images.DEBIAN.reference}\n"
    "RUN apt-get update && apt-get install -y --no-install-recommends libexpat1 && rm -rf /var/lib/apt/lists/*\n",
    files={},
)
WORKER = replace(images.WORKER, containerfile=f"FROM {TOOLS.reference}\nCOPY worker.py /srv/worker.py\n")

Result = TypeVar("Result")


@dataclass
class Dock:
    """The running dock with its cast, and what was built for it."""

    server: Server
    builder: Builder
    accounts: dict[str, Account]
    patched: Path  # Debian's root file system with its security suite
    debian: Built | None = None

    def push(
        self, product: Product, *, base: Built | None = None, context: Path | None = None, name: str = ""
    ) -> Built:
        bases = {base.product.reference: base.pinned} if base is not None else {}
        name = name or product.repository.replace("/", "-")
        if product.has_recipe:  # before its image: a recipe that is newer would forbid a rebase
            self.server.put_recipe(product)
        built = self.builder.build(product, name=name, bases=bases, context=context)
        self.builder.push(built, self.accounts[product.keeper])
        self.server.await_image(built.digest, product.keeper)
        return built


@pytest.fixture
def made(live_stack: Services, settings: Any, tmp_path: Path) -> Dock:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]  # as the web process has it
    settings.SCRATCH = str(tmp_path)
    (live_stack.home / "scratch").mkdir(exist_ok=True)
    registry, teller = ensure_managed_registry(), Teller(print)
    builder = Builder(tmp_path, client_for(registry), host=registry.host, is_https=False, teller=teller)
    with ThreadPoolExecutor(2) as pool:
        roots = [
            pool.submit(builder.make_root, name, with_security=patched)
            for name, patched in (("old", False), ("new", True))
        ]
        accounts = cast.seed(registry, tmp_path / "accounts.json", web=settings.PUBLIC_URL)
        synced = sync_feed(str(ADVISORIES), feed_name="demo", actor=system_user())
        assert synced.error_count == 0
        old, new = (root.result() for root in roots)
    dock = Dock(Server(settings.PUBLIC_URL, accounts, teller), builder, accounts, new)
    dock.debian = dock.push(images.DEBIAN, context=old)
    dock.push(WORKER, base=dock.push(TOOLS, base=dock.debian))
    return dock


@pytest.fixture
def browser(made: Dock) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


def away(act: Callable[[], Result]) -> Result:
    """Run `act` in a thread: the browser's event loop keeps Django of this one from the database."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()


class Person:
    """Somebody at a browser."""

    def __init__(self, browser: Browser, base: str, account: Account) -> None:
        self.base = base
        self.complaints: list[str] = []
        self.page: Page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.goto(base)
        self.page.fill("#id_login", account.username)
        self.page.fill("#id_password", account.password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda url: "sign-in" not in url)

    def go(self, item: str) -> None:
        self.page.get_by_role("navigation", name="Main").get_by_role("link", name=re.compile(f"^{item}")).click()

    def link(self, name: str | re.Pattern[str]) -> None:
        self.page.get_by_role("link", name=name).first.click()

    def button(self, name: str | re.Pattern[str]) -> None:
        self.page.get_by_role("button", name=name).first.click()

    def reload_until(self, text: str | re.Pattern[str], timeout_s: int = 90) -> None:
        """Load the page again, as people do, until it says so."""
        for _ in range(timeout_s):
            if self.page.get_by_text(text).count():
                return
            self.page.wait_for_timeout(1000)
            self.page.reload()
        raise AssertionError(f"{text!r} did not appear: {self.page.locator('main').inner_text()[:2000]}")


def current_digest(stack: Services, account: Account, reference: str) -> str:
    done = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"--creds={account.username}:{account.registry_token}",
         f"docker://localhost:{stack.registry.port}/{reference}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    digest: str = json.loads(done.stdout)["Digest"]
    return digest


def open_ids(dock: Dock, digest: str) -> set[str]:
    found = dock.server.findings(digest, "dock-master")
    return {row["advisory"] for row in found if row["state"] == "open"}


def test_push_promote_and_rebuild_on_patched_base(live_stack: Services, made: Dock, browser: Browser) -> None:
    base, people = live_stack.web_url, made.accounts
    developer, approver, deployer, master = (
        Person(browser, base, people[name])
        for name in ("shop-developer", "shop-approver", "shop-deployer", "dock-master")
    )

    # A push appears, is scanned, and says what is wrong with it, and who can fix that.
    static = away(lambda: made.push(images.STATIC, base=made.debian))
    developer.go("Images")
    developer.reload_until("shop/static", 30)
    developer.link("shop/static")
    developer.link(re.compile("^1.0$"))
    expect(developer.page.locator("main")).to_contain_text(static.digest)
    developer.reload_until(re.compile(r"^[1-9]\d* findings$"), 120)
    developer.link(re.compile("^Findings"))
    expect(developer.page.get_by_role("table").first).to_contain_text("openssl")
    expect(developer.page.locator("main")).to_contain_text("base/debian")

    # Asked for by one, approved by another, carried out by a third.
    developer.link("Promote")
    developer.page.get_by_label("dev", exact=True).check()
    developer.page.get_by_label("Reason").fill("The first release of the shop's pages.")
    developer.button("Request promotion")
    expect(developer.page.locator("main")).to_contain_text("Open")
    expect(developer.page.get_by_role("button", name="Approve").first).to_have_attribute("aria-disabled", "true")
    approver.go("Inbox")
    approver.reload_until("shop/static", 30)
    approver.button(re.compile("^Approve"))
    expect(approver.page.locator("main")).to_contain_text("You approved")
    deployer.go("Inbox")
    deployer.reload_until("shop/static", 30)
    deployer.button("Run promotion")
    deployer.page.wait_for_url("**/promotions/*/")
    expect(deployer.page.locator("main")).to_contain_text("Succeeded", timeout=60_000)
    assert current_digest(live_stack, people["shop-developer"], "dev/shop/static:current") == static.digest
    refused = away(lambda: made.builder.refusal(static, people["captain"], "dev/shop/static"))
    assert "denied" in refused

    # The base is watched; upstream moves.
    master.go("Images")
    master.link("base/debian")
    master.link(re.compile("^Rebuilds"))
    master.button("Watch tag")
    expect(master.page.locator("main")).to_contain_text("watched by dock-master")
    before = {row["repository"]: row for row in made.server.api("dock-master").rows("promotions/", most=5)}
    assert before["shop/static"]["state"] == "succeeded"
    found_before = open_ids(made, static.digest)
    patched = away(lambda: made.push(images.DEBIAN, context=made.patched, name="patched"))

    # The watch proposes a wave: levels, methods with their reasons, and what it would fix.
    master.go("Lineage")
    master.link("Rebuilds")
    master.reload_until(re.compile(r"^W-\d+ on"))
    master.link(re.compile(r"^W-\d+"))
    plan = master.page.locator("main")
    expect(plan).to_contain_text(patched.digest[7:15])
    expect(plan).to_contain_text("Expected fixes")
    expect(plan.get_by_role("region", name="Level 1")).to_contain_text("shop/static")
    expect(plan.get_by_role("region", name="Level 1")).to_contain_text("write the package database")
    expect(plan.get_by_role("region", name="Level 2")).to_contain_text("shop/worker")
    master.button(re.compile("^Rebuild 3 images"))

    # It is followed without a reload; the log is live.
    tail = plan.get_by_label("Last log lines of shop/api")
    expect(tail).to_contain_text(re.compile("STEP|apt-get|Reading|Get:|Setting up"), timeout=120_000)
    expect(plan).to_contain_text("Rebased", timeout=120_000)
    expect(plan).to_contain_text("3 of 3", timeout=240_000)
    expect(plan.get_by_role("region", name="Level 1")).to_contain_text("Rebuilt")
    row = plan.locator("tbody").filter(has=master.page.get_by_role("link", name="shop/api", exact=True))
    expect(row.locator("td[data-label=Fixed]")).not_to_have_text("0")

    # What is renewed is offered where the old image is, and the findings are gone.
    developer.page.goto(master.page.url)
    developer.link(re.compile("^Request promotion to dev"))
    developer.page.get_by_label("Reason").fill("Debian's security updates.")
    expect(developer.page.locator("#diff")).to_contain_text("fixed")
    developer.button("Request promotion")
    expect(developer.page.locator("main")).to_contain_text("Open")
    requested = next(iter(made.server.api("shop-developer").rows("promotions/", most=1, state="open")))
    renewed = requested["digest"]
    assert renewed != static.digest
    found_after = open_ids(made, renewed)
    assert found_before - found_after
    assert not found_after - found_before
    approver.go("Inbox")
    approver.reload_until("shop/static", 30)
    approver.page.get_by_label("Comment", exact=True).first.fill("Not on a Friday.")
    approver.button(re.compile("^Reject"))
    expect(approver.page.locator("main")).to_contain_text("You rejected")
    assert current_digest(live_stack, people["shop-developer"], "dev/shop/static:current") == static.digest
    assert [person.complaints for person in (developer, approver, deployer, master)] == [[], [], [], []]
