"""Administration in a real browser: axe and the CSP in both themes and at both widths, and a day of an admin."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from accounts.models import User
from lifecycle.authority import services
from lifecycle.authority.services.environments import create_environment
from lifecycle.core import clock
from lifecycle.jobs import services as job_services
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.trust import signing
from tests.e2e.chromium import LOOKS, NEEDS_CHROMIUM, signed_in
from tests.factories import dock

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]
SHOTS = os.environ.get("SHOTS", "")  # a folder: pictures of every page for people to look at


@pytest.fixture
def harbour(transactional_db: None) -> dict[str, Any]:
    """The dock, whose reader is an admin too, with people, a robot, environments and a composed role."""
    made = dock.harbour()
    reader: User = made["reader"]
    reader.is_superuser = True
    reader.save()
    shop = dock.team("shop")
    for slug, approvals in (("dev", 0), ("staging", 1), ("production", 2)):
        create_environment(
            shop, actor=reader, slug=slug, name=slug.capitalize(), prefix=slug, required_approvals=approvals
        )
    for name, role, more in (
        ("qa-lead", "approver", {"environment": "staging"}),
        ("release", "deployer", {}),
        ("sec-lead", "security", {"repository_pattern": "shop/api*"}),
    ):
        dock.user(name)
        services.add_member(shop.pk, actor=reader, username=name, role=role, **more)
    services.create_role(
        actor=reader, slug="release-crew", name="Release crew", verbs=["promotion.request", "promotion.approve"]
    )
    robot = services.create_robot(shop.pk, actor=reader, name="ci")
    services.grant_robot(robot.pk, actor=reader, role="creator", repository_pattern="shop/*")
    services.create_robot_token(robot.pk, actor=reader, name="pipeline of shop/api")
    services.change_role("release-crew", actor=reader, name="Release crew", verbs=["image.view"])
    for name in ("release-2026", "release-2027"):
        signing.create_key(name, actor=reader)
    signing.retire_key("release-2026", actor=reader)
    asked = services.ask_for_access(
        "shop",
        actor=dock.user("on-call", "viewer", of=shop),
        role="deployer",
        days=7,
        reason="on call",
        repository_pattern="shop/*",
    )
    made["pages"] = [
        "/access/",
        "/access/?who=shop%2Bci",
        "/access/file/",
        "/access-requests/",
        "/access-requests/new/?team=shop&repository=shop/api&verb=promotion.approve",
        f"/access-requests/{asked.pk}/",
        "/due-dates/",
        "/signing-keys/",
        "/signing-keys/release-2027/retire/",
        "/teams/",
        "/teams/shop/",
        "/teams/shop/?tab=robots",
        "/teams/shop/?tab=environments",
        "/teams/shop/?tab=why&who=qa-lead&verb=promotion.approve&repository=shop/api&environment=production",
        f"/teams/shop/robots/{robot.pk}/",
        f"/teams/shop/robots/{robot.pk}/retire/",
        f"/teams/shop/grants/{robot.user.role_grants.get().pk}/revoke/",
        "/roles/owner/",
        "/roles/release-crew/",
        "/roles/?new",
        "/people/",
        f"/people/{User.objects.get(username='release').pk}/deactivate/",
        "/account/tokens/",
        "/account/security/",
        "/account/security/authenticator/",
        "/account/security/passkeys/new/",
        "/account/confirm/",
        "/security/",
        "/accounts/password/change/",
        "/audit/",
        "/audit/?action=role&since=bad",
        f"/audit/{_event('role.changed')}/",
        "/jobs/",
        *(f"/jobs/{pk}/" for pk in _jobs(reader, made["api"].pk)),
    ]
    return made


def _jobs(reader: User, image_id: int) -> list[int]:
    """Return a job that failed, one that runs with a log, and one that waits."""
    failed = Job.objects.create(
        kind="scan", subject_id=image_id, actor=reader, state="failed", finished_at=clock.now(), attempts=5,
        error_code="registry_unavailable",
        last_error="The registry did not answer within 10 s.",
    )  # fmt: skip
    runs = Job.objects.create(kind="crawl", subject_id=1, actor=reader, payload={"repository": "shop/api"})
    job_services.claim(runs.pk, worker="dock-1:4711")
    Job.objects.filter(pk=runs.pk).update(
        progress_done=213, progress_total=500, progress_text="tags", started_at=clock.now() - timedelta(seconds=90)
    )
    for number in range(60):
        JobLogLine.objects.create(job=runs, text=f"shop/api: tag 1.{number} is as it was")
    waits = Job.objects.create(kind="promote", subject_id=99, actor=reader)
    return [failed.pk, runs.pk, waits.pk]


def _event(action: str) -> int:
    from lifecycle.audit.models import AuditEvent

    return AuditEvent.objects.get(action=action).pk


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_pages_pass_axe_and_the_csp(
    browser: Browser,
    harbour: dict[str, Any],
    live_server: Any,
    theme: str,
    width: int,
) -> None:
    page = signed_in(browser, live_server.url, theme=theme, width=width)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    for number, address in enumerate(harbour["pages"]):
        page.goto(live_server.url + address)
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/{number:02d}-{theme}-{width}.png", full_page=True)
        result = Axe().run(page)
        assert result.violations_count == 0, (address, result.generate_report())
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, (address, f"scrolls sideways by {wider} px")
    assert [text for text in complaints if "422" not in text] == []  # one address above asks for a bad date


@pytest.mark.parametrize("script", [True, False])
def test_common_admin_tasks_work_with_and_without_script(browser: Browser, live_server: Any, script: bool) -> None:
    page = signed_in(browser, live_server.url, script=script)
    page.locator(".menu-button").click()
    page.get_by_role("link", name="Teams and roles").click()
    page.get_by_role("link", name="People").click()
    page.get_by_label("User name", exact=True).last.fill("lee")
    page.get_by_role("button", name="Create account").click()
    invitation = page.locator("#secret >> xpath=../.. >> .command code").first.inner_text()
    assert "/account/link/" in invitation
    page.goto(live_server.url + "/teams/shop/")
    page.get_by_label("User name").fill("lee")
    page.get_by_label("Role", exact=True).select_option("viewer")
    page.get_by_role("button", name="Grant role").click()
    row = page.get_by_role("row").filter(has_text="lee")
    expect(row).to_have_count(1)
    row.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke grant").click()
    expect(page.get_by_role("heading", name="Revoke")).to_have_count(0)  # the page of the team is back
    expect(page.get_by_role("row").filter(has_text="lee")).to_have_count(0)
    page.goto(live_server.url + "/account/tokens/")
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Create token").click()
    expect(page.locator("code").first).to_contain_text(re.compile("^gdk_pat_"))
    page.goto(live_server.url + "/audit/?action=grant")
    page.get_by_role("link", name="grant.revoked").first.click()
    expect(page.get_by_role("heading", name="grant.revoked")).to_be_visible()
