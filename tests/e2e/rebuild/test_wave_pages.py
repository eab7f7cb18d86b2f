"""The pages of rebuilds in a real browser: clean in both themes, alive while a wave runs, and whole without script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from threading import Thread
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.db import connections
from django.db.models import F
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lifecycle.core import clock
from lifecycle.jobs.models import JobLogLine
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.registry.models import Image, Repository
from tests.e2e.chromium import ARGUMENTS, CHROMIUM, LOOKS, NEEDS_CHROMIUM, signed_in
from tests.factories import dock, waves

pytestmark = [pytest.mark.django_db(transaction=True), NEEDS_CHROMIUM]


@pytest.fixture
def made(transactional_db: None) -> dict[str, Any]:
    """A wave in each state that looks different, an environment that holds an old image, and a watched tag."""
    harbour = dock.harbour()
    static = Repository.objects.get(name="shop/static")
    waves.environment("staging", Image.objects.get(digest=dock.sha("shop/static")), static)
    failed = waves.failed(harbour)
    running = waves.running(harbour)
    planned = waves.planned(harbour)
    waves.watch(planned.repository, harbour["reader"])
    api = waves.job_of(running, "shop/api")
    return {"planned": planned, "running": running, "failed": failed, "api": api, "static": static}


@pytest.fixture
def browser(made: dict[str, Any], live_server: Any) -> Iterator[Browser]:
    """A browser; rows are made before it starts, since its event loop keeps Django from the database."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


def addresses(made: dict[str, Any]) -> list[str]:
    log = reverse("lifecycle:wave-log", args=[made["running"].pk, made["api"].pk])
    base, api = (reverse("lifecycle:repository", args=name) for name in (["base", "base/debian"], ["shop", "shop/api"]))
    return [
        reverse("lifecycle:waves"),
        reverse("lifecycle:wave-plan"),
        *(reverse("lifecycle:wave", args=[made[name].pk]) for name in ("planned", "running", "failed")),
        reverse("lifecycle:wave-cancel", args=[made["running"].pk]),
        log,
        f"{base}?tab=rebuilds",
        f"{api}?tab=recipe",
        f"{api}?tab=recipe&revision=1",
        reverse("lifecycle:recipe-new", args=[made["api"].repository_id]),
        reverse("lifecycle:image", args=["shop", "shop/static", dock.sha("shop/static")]),
    ]


def in_database(act: Any) -> None:
    """Run `act` in a thread: the browser's event loop keeps Django of this one from the database."""

    def body() -> None:
        act()
        connections.close_all()

    thread = Thread(target=body)
    thread.start()
    thread.join(timeout=20)


@pytest.mark.parametrize(("theme", "width"), LOOKS)
def test_pages_pass_axe_and_the_csp(
    browser: Browser,
    live_server: Any,
    made: dict[str, Any],
    theme: str,
    width: int,
) -> None:
    page = signed_in(browser, live_server.url, theme=theme, width=width)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    for address in addresses(made):
        page.goto(live_server.url + address)
        page.evaluate("for (const closed of document.querySelectorAll('details')) closed.open = true")
        result = Axe().run(page)
        assert result.violations_count == 0, (address, result.generate_report())
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, (address, f"scrolls sideways by {wider} px")
    assert complaints == []


def open_wave(page: Page, base: str, wave: RebuildWave) -> None:
    page.goto(base + reverse("lifecycle:wave", args=[wave.pk]))


def test_row_updates_live_and_keeps_open_details_and_focus(
    browser: Browser,
    live_server: Any,
    made: dict[str, Any],
) -> None:
    page, job = signed_in(browser, live_server.url), made["api"]
    open_wave(page, live_server.url, made["running"])
    row = page.locator(f"#job-{job.pk}")
    expect(row).to_contain_text("Building")
    summary = page.get_by_text("Changes in base/python")
    summary.click()
    link = page.locator(f"#image-{job.pk}")
    link.focus()
    with page.expect_response(lambda answer: answer.status == 304 and "/rebuilds/" in answer.url):
        pass  # the page asks every 2 s, and nothing has changed
    in_database(lambda: JobLogLine.objects.create(job=waves.log(job, actor=job.recipe.author), text="Almost there"))
    expect(row).to_contain_text("Almost there")
    in_database(lambda: waves.finish(job, fixed=("CVE-2024-5535",), remaining=4))
    expect(row).to_contain_text("Rebuilt")
    expect(page.locator("#live")).to_contain_text("3 of 4 images done")
    expect(page.get_by_text("CVE-2025-64756")).to_be_visible()  # in what the reader had opened
    expect(page.locator(f"#image-{job.pk}")).to_be_focused()


def test_polling_can_be_paused_and_stops_with_the_wave(
    browser: Browser,
    live_server: Any,
    made: dict[str, Any],
) -> None:
    page, wave, job = signed_in(browser, live_server.url), made["running"], made["api"]
    open_wave(page, live_server.url, wave)
    page.get_by_role("button", name="Pause updates").click()
    in_database(lambda: RebuildJob.objects.filter(pk=job.pk).update(state="scanning", new_image=F("old_image")))
    page.wait_for_timeout(4500)
    row = page.locator(f"#job-{job.pk}")
    expect(row).to_contain_text("Building")
    page.get_by_role("button", name="Resume updates").click()
    expect(row).to_contain_text("Scanning")
    in_database(lambda: RebuildWave.objects.filter(pk=wave.pk).update(state="succeeded", finished_at=clock.now()))
    expect(page.locator("#wave")).not_to_have_attribute("hx-trigger", "every 2s")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3000)
    assert asked == []


def test_unreachable_server_is_shown_and_expired_session_leads_to_sign_in(
    browser: Browser, live_server: Any, made: dict[str, Any]
) -> None:
    page = signed_in(browser, live_server.url)
    open_wave(page, live_server.url, made["running"])
    page.route("**/rebuilds/*/", lambda route: route.abort())
    expect(page.locator("#wave.is-stale")).to_be_visible()
    page.unroute("**/rebuilds/*/")
    expect(page.locator("#wave:not(.is-stale)")).to_be_visible()
    page.context.clear_cookies()
    page.wait_for_url("**/accounts/sign-in/**", timeout=15000)


def test_log_follows_new_lines_until_user_scrolls_up(
    browser: Browser,
    live_server: Any,
    made: dict[str, Any],
) -> None:
    job = made["api"]
    lines = [f"line {number}" for number in range(300)]
    in_database(lambda: waves.log(job, *lines, actor=job.recipe.author))
    page = signed_in(browser, live_server.url)
    page.goto(live_server.url + reverse("lifecycle:wave-log", args=[made["running"].pk, job.pk]))
    log = page.locator("#lines")
    at_end = "() => { const box = document.querySelector('#lines');\
        return box.scrollTop + box.clientHeight >= box.scrollHeight - 8 }"
    page.wait_for_function(at_end)
    in_database(lambda: waves.log(job, "one more", actor=job.recipe.author))
    expect(log).to_contain_text("one more")
    page.wait_for_function(at_end)
    log.evaluate("box => { box.scrollTop = 40 }")
    in_database(lambda: waves.log(job, "and another", actor=job.recipe.author))
    expect(log).to_contain_text("and another")
    page.wait_for_function("document.querySelector('#lines').scrollTop === 40")


def test_cancel_dialog_stays_open_during_polls(
    browser: Browser,
    live_server: Any,
    made: dict[str, Any],
) -> None:
    page, wave, job = signed_in(browser, live_server.url), made["running"], made["api"]
    open_wave(page, live_server.url, wave)
    page.get_by_role("link", name="Cancel wave").click()
    dialog = page.get_by_role("dialog", name=f"Cancel {wave}?")
    expect(dialog).to_contain_text("1 running build will stop within seconds. 1 waiting build will not start.")
    in_database(lambda: RebuildJob.objects.filter(pk=job.pk).update(state="scanning", new_image=F("old_image")))
    page.wait_for_timeout(3000)
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Cancel 2 images").click()
    expect(page.get_by_text(f"{wave} is cancelled. Finished images are kept.")).to_be_visible()


@pytest.mark.parametrize("script", [True, False])
def test_discard_plan_retry_and_cancel_work_with_and_without_script(
    browser: Browser,
    live_server: Any,
    made: dict[str, Any],
    script: bool,
) -> None:
    page = signed_in(browser, live_server.url, script=script)
    open_wave(page, live_server.url, made["planned"])
    page.get_by_role("button", name="Discard plan").click()
    expect(page.get_by_role("button", name="Discard plan")).to_have_count(0)
    page.goto(live_server.url + reverse("lifecycle:waves"))
    page.get_by_role("link", name="Plan rebuild").click()
    with page.expect_response("**/rebuilds/new/?**") if script else nullcontext():
        page.get_by_label("Base repository").select_option("base/debian")
    expect(page.locator(".htmx-request")).to_have_count(0)  # the tag of this base would replace what is typed now
    page.get_by_label("Tag or digest").fill("trixie")
    page.get_by_role("button", name="Plan rebuild").click()
    expect(page.get_by_role("alert")).to_contain_text("base/debian has no image trixie.")
    page.goto(live_server.url + reverse("lifecycle:wave", args=[made["failed"].pk]))
    page.get_by_role("button", name="Retry 2 images").click()
    expect(page.get_by_text("Failed and blocked images are retried.")).to_be_visible()
    if not script:
        page.get_by_role("link", name="Refresh").click()
    page.get_by_role("link", name="Cancel wave").click()
    page.get_by_role("button", name="Cancel 2 images").click()
    expect(page.get_by_text("is cancelled. Finished images are kept.")).to_be_visible()
