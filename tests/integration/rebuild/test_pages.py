"""The rebuild pages: plan, confirm, follow and cancel. Users without rights see the reason, or nothing."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.queries import system_user
from lifecycle.core import clock
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.pages.rebuild import page_queries
from lifecycle.rebuild import queries
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Image, Repository
from tests.clients import browser
from tests.factories import dock, waves
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db
FIXED = ("CVE-2023-5678", "CVE-2024-45490", "CVE-2024-5535")


def page(client, wave, **headers):
    return client.get(reverse("lifecycle:wave", args=[wave.pk]), headers=headers)


def act(client, name, wave):
    return client.post(reverse(f"lifecycle:wave-{name}", args=[wave.pk]))


def test_form_creates_plan_and_starts_nothing(harbour, owner, monkeypatch):
    answer_with(InMemoryRegistry(), monkeypatch)  # reachable, but empty
    base = Repository.objects.get(name="base/debian")
    refused = owner.post(reverse("lifecycle:wave-plan"), {"base": base.pk, "reference": "bookworm"})
    assert refused.status_code == 422
    assert "No image can be rebuilt on base/debian:bookworm." in refused.content.decode()
    assert not RebuildWave.objects.exists()  # an empty plan is not stored
    for name in ("base/python", "shop/static"):
        waves.recipe(
            Repository.objects.get(name=name),
            harbour["reader"],
            containerfile="FROM base/debian:bookworm\n",
            base_references=["base/debian:bookworm"],
        )
    answer = owner.post(reverse("lifecycle:wave-plan"), {"base": base.pk, "reference": "bookworm"})
    made = RebuildWave.objects.get()
    assert answer["Location"] == reverse("lifecycle:wave", args=[made.pk])
    assert (made.state, made.new_base, made.planned_by) == ("planned", harbour["new"], harbour["reader"])
    assert not Job.objects.filter(kind="rebuild").exists()


def test_another_base_in_the_plan_form_brings_its_own_tag(harbour, owner):
    address = reverse("lifecycle:wave-plan")
    bases = page_queries.bases_visible_to(harbour["reader"])
    assert len(bases) > 1
    for base in bases:
        tag = page_queries.tag_to_plan(base)
        form = owner.get(address, {"base": base.pk, "reference": ""}).context["form"]
        assert (form.initial["base"], form.initial["reference"]) == (base.pk, tag.name)
    text = owner.get(address).content.decode()
    assert f'hx-get="{address}"' in text
    assert 'hx-target="#reference"' in text


def test_watch_of_an_invalid_tag_says_why_and_watches_nothing(harbour, owner):
    base = Repository.objects.get(name="base/debian")
    address = reverse("lifecycle:watch-add", args=[base.pk])
    answer = owner.post(address, {"tag": "no tag!"}, follow=True)
    assert "Invalid tag." in answer.content.decode()
    assert not UpstreamWatch.objects.exists()
    assert "Watching base/debian:bookworm" in owner.post(address, {"tag": "bookworm"}, follow=True).content.decode()


@pytest.mark.parametrize("reference", ["trixie", "no tag!", "sha256:12", ""])
def test_unknown_reference_shows_the_form_again_with_its_text(harbour, owner, reference):
    base = Repository.objects.get(name="base/debian")
    answer = owner.post(reverse("lifecycle:wave-plan"), {"base": base.pk, "reference": reference})
    assert answer.status_code == 422
    assert f'value="{reference}"' in answer.content.decode() or not reference
    assert "Fix the errors below." in answer.content.decode()
    assert not RebuildWave.objects.exists()


def test_hidden_base_is_not_offered_and_cannot_be_posted(harbour):
    stranger = browser(dock.user("stranger", "owner", of=dock.team("elsewhere")))
    base = Repository.objects.get(name="base/debian")
    assert "base/debian" not in stranger.get(reverse("lifecycle:wave-plan")).content.decode()
    answer = stranger.post(reverse("lifecycle:wave-plan"), {"base": base.pk, "reference": "bookworm"})
    assert answer.status_code == 422
    assert not RebuildWave.objects.exists()


def test_form_offers_bases_with_derived_images(harbour, owner):
    text = owner.get(reverse("lifecycle:wave-plan")).content.decode()
    assert [name for name in ("base/debian", "base/python", "shop/api", "shop/worker") if f">{name}<" in text] == [
        "base/debian",
        "base/python",
        "shop/api",
    ]


def test_plan_shows_its_effects_and_confirm_shows_the_count(harbour, owner):
    wave = waves.planned(harbour)
    text = page(owner, wave).content.decode()
    for words in (
        "Expected fixes",
        "Rebuild 4 images in 2 teams",
        "Its own layers go onto the new base",
        "Not rebased: A layer of it writes the package database",
        "It has no recipe, and cannot be rebased",
        "A build runs in a box",
        " in all images",
        "· unknown for 1 image",
        "in 3 images",
        "Packages that its own recipe installs can change as well",
        "Unknown until packages are recognised in the new base and in the image.",
        'hx-trigger="every 5s"',  # until the last number is known
    ):
        assert words in text
    RebuildJob.objects.filter(wave=wave).update(would_fix=[])
    assert 'hx-trigger="every' not in page(owner, wave).content.decode()
    assert act(owner, "confirm", wave).status_code == 302
    wave.refresh_from_db()
    assert (wave.state, wave.confirmed_by) == ("running", harbour["reader"])
    assert act(owner, "confirm", wave).status_code == 409


def test_viewer_sees_disabled_buttons_with_reason_and_is_refused(harbour, viewer):
    wave = waves.planned(harbour)
    text = page(viewer, wave).content.decode()
    assert "You need image.rebuild on base/python, shop/api, shop/static and 1 more" in text
    assert reverse("lifecycle:wave-confirm", args=[wave.pk]) not in text
    for name in ("confirm", "cancel", "retry"):
        assert act(viewer, name, wave).status_code == 403
    wave.refresh_from_db()
    assert wave.state == "planned"


def test_hidden_images_are_neither_named_nor_counted(harbour):
    wave = waves.failed(harbour)
    narrow = browser(dock.user("narrow", "viewer", of=dock.team("base")))
    text = page(narrow, wave).content.decode()
    assert "base/python" in text
    assert "shop/" not in text
    assert "1</span> of 1" in text
    listed = narrow.get(reverse("lifecycle:waves")).content.decode()
    assert "1 of 1 done" in listed
    assert "failed</b>" not in listed


def test_hidden_level_is_omitted_and_other_levels_keep_their_numbers(harbour):
    wave = waves.running(harbour)
    other = dock.repository("elsewhere/api", dock.team("elsewhere"))
    RebuildJob.objects.filter(pk=waves.job_of(wave, "shop/api").pk).update(repository=other)
    text = page(browser(harbour["reader"]), wave).content.decode()
    assert "Running, level 3 of 3" in text
    assert "Level 2<" not in text
    assert "elsewhere" not in text


def test_stranger_gets_not_found(harbour):
    wave = waves.running(harbour)
    stranger = browser(dock.user("stranger", "owner", of=dock.team("elsewhere")))
    job = waves.job_of(wave, "shop/api")
    for name, args in (("wave", [wave.pk]), ("wave-cancel", [wave.pk]), ("wave-log", [wave.pk, job.pk]),
                       ("wave-log-raw", [wave.pk, job.pk])):  # fmt: skip
        assert stranger.get(reverse(f"lifecycle:{name}", args=args)).status_code == 404
    for name in ("confirm", "cancel", "retry"):
        assert act(stranger, name, wave).status_code == 404
    assert f"W-{wave.pk}" not in stranger.get(reverse("lifecycle:waves")).content.decode()


def test_running_wave_shows_states_results_and_log_tail(harbour, owner):
    text = page(owner, waves.running(harbour)).content.decode()
    for words in (
        "Running, level 2 of 3",
        "Rebased",
        "Rebuilt",
        "Building",
        "Waiting",
        "Collecting urllib3==1.26.5",
        "CVE-2025-64756",
        "2 done (1 rebased, 1 rebuilt)",
        "1 building",
        'hx-trigger="every 2s"',
    ):
        assert words in text


def test_failure_shows_contact_blocked_images_and_retry(harbour, owner):
    wave = waves.failed(harbour)
    text = page(owner, wave).content.decode()
    for words in ("Needs attention", "ended with exit code 1", "shop/api could not be rebuilt.", "Retry 2 images"):
        assert words in text
    assert 'hx-trigger="every' not in text
    assert act(owner, "retry", wave).status_code == 302
    wave.refresh_from_db()
    assert wave.state == "running"


def test_cancel_asks_with_count_then_cancels(harbour, owner):
    wave = waves.running(harbour)
    question = owner.get(reverse("lifecycle:wave-cancel", args=[wave.pk])).content.decode()
    assert "1 running build will stop within seconds." in question
    assert "1 waiting build will not start." in question
    assert "Cancel 2 images" in question
    assert act(owner, "cancel", wave).status_code == 302
    wave.refresh_from_db()
    assert wave.state == "cancelled"
    assert waves.job_of(wave, "shop/worker").state == "cancelled"


def test_finished_image_is_offered_where_old_one_is_deployed(harbour, owner):
    wave = waves.running(harbour)
    static = Repository.objects.get(name="shop/static")
    old = Image.objects.get(digest=dock.sha("shop/static"))
    assert "Request promotion to" not in page(owner, wave).content.decode()
    environment = waves.environment("staging", old, static)
    new = waves.job_of(wave, "shop/static").new_image
    link = f"{reverse('lifecycle:promotion-new')}?repository={static.pk}&amp;digest={new.digest}"
    text = page(owner, wave).content.decode()
    assert link in text
    assert "Request promotion to staging" in text
    environment.slots.update(image=new)
    assert link not in page(owner, wave).content.decode()


def test_poll_gets_fragment_and_304_while_unchanged(harbour, owner):
    wave = waves.running(harbour)
    first = page(owner, wave, **{"HX-Request": "true"})
    assert first.content.lstrip().startswith(b'<div id="wave"') or b"<html" not in first.content
    etag = page_queries.fingerprint(harbour["reader"], wave)
    again = page(owner, wave, **{"HX-Request": "true", "If-None-Match": f'"{etag}"'})
    assert (again.status_code, again.content) == (304, b"")
    waves.log(waves.job_of(wave, "shop/api"), "Successfully installed", actor=harbour["reader"])
    after = page(owner, wave, **{"HX-Request": "true", "If-None-Match": f'"{etag}"'})
    assert after.status_code == 200
    assert "Successfully installed" in after.content.decode()
    whole = page(owner, wave, **{"If-None-Match": f'"{page_queries.fingerprint(harbour["reader"], wave)}"'})
    assert whole.status_code == 200
    assert "HX-Request" in whole["Vary"]


def test_log_is_shown_and_downloaded_completely(harbour, owner):
    wave = waves.running(harbour)
    job = waves.job_of(wave, "shop/api")
    waves.log(job, *(f"line {number} <b>" for number in range(30)), actor=harbour["reader"])
    shown = owner.get(reverse("lifecycle:wave-log", args=[wave.pk, job.pk])).content.decode()
    assert "line 0 &lt;b&gt;" in shown
    raw = owner.get(reverse("lifecycle:wave-log-raw", args=[wave.pk, job.pk]))
    text = b"".join(raw.streaming_content).decode()
    assert raw["Content-Type"] == "text/plain; charset=utf-8"
    assert text.count("\n") == 34
    assert "Z line 29 <b>\n" in text
    assert "line 21 " not in page(owner, wave).content.decode()
    assert "line 29 " in page(owner, wave).content.decode()


def _count(client, address):
    client.get(address)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address).status_code == 200
    return len(queries)


def test_list_costs_same_queries_for_one_and_three_waves(harbour, owner):
    waves.running(harbour)
    one = _count(owner, reverse("lifecycle:waves"))
    waves.failed(harbour)
    waves.planned(harbour)
    assert _count(owner, reverse("lifecycle:waves")) == one <= 12


def test_wave_costs_same_queries_for_one_and_three_images_of_a_kind(harbour, owner):
    wave = waves.running(harbour)
    address = reverse("lifecycle:wave", args=[wave.pk])
    one = _count(owner, address)
    api = waves.job_of(wave, "shop/api")
    for number in range(2):
        where = dock.repository(f"shop/more-{number}")
        job = RebuildJob.objects.create(
            wave=wave, repository=where, level=1, old_image=Image.objects.get(digest=dock.sha("shop/api")), tag="1.0",
            state="building", method="build", started_at=api.started_at,
        )  # fmt: skip
        waves.log(job, "STEP 1/2", actor=harbour["reader"])
        done = dock.repository(f"shop/done-{number}")
        made = RebuildJob.objects.create(
            wave=wave, repository=done, level=1, old_image=Image.objects.get(digest=dock.sha("shop/worker")), tag="1.0"
        )
        waves.finish(made, fixed=FIXED)
    assert _count(owner, address) == one <= 24


def test_list_filters_by_state_and_explains_when_empty(harbour, owner):
    address = reverse("lifecycle:waves")
    assert "No rebuild waves yet." in owner.get(address).content.decode()
    waves.planned(harbour)
    assert "W-" in owner.get(f"{address}?state=planned").content.decode()
    assert "No failed waves found." in owner.get(f"{address}?state=failed").content.decode()


def test_image_names_waves_that_built_and_rebuilt_it(harbour, owner, viewer):
    wave = waves.running(harbour)
    static = waves.job_of(wave, "shop/static")
    team, name = "shop", "shop/static"
    new = owner.get(reverse("lifecycle:image", args=[team, name, static.new_image.digest])).content.decode()
    assert "Rebased in" in new
    assert reverse("lifecycle:wave", args=[wave.pk]) in new
    assert "3 fixed" in new
    old = owner.get(reverse("lifecycle:image", args=[team, name, static.old_image.digest])).content.decode()
    assert "created a newer image" in old
    narrow = browser(dock.user("shop-only", "viewer", of=dock.team("shop")))
    hidden = narrow.get(reverse("lifecycle:image", args=[team, name, static.new_image.digest])).content.decode()
    assert "Rebased in" in hidden
    assert reverse("lifecycle:wave", args=[wave.pk]) not in hidden


def test_base_offers_plan_or_says_why_it_would_be_empty(harbour, owner, viewer):
    address = reverse("lifecycle:image", args=["base", "base/debian", harbour["new"].digest])
    assert f'value="{harbour["new"].digest}"' in owner.get(address).content.decode()
    words = "You need image.rebuild on an image built on base/debian"
    for place in (address, reverse("lifecycle:repository", args=["base", "base/debian"])):
        assert (
            f"You cannot plan a rebuild. {words}" in viewer.get(place).content.decode()
        )  # beside the button, not only on hover
        assert words not in owner.get(place).content.decode()
    old = reverse("lifecycle:image", args=["base", "base/debian", harbour["old"].digest])
    assert 'name="reference" value="bookworm"' in owner.get(old).content.decode()
    worker = reverse("lifecycle:image", args=["shop", "shop/worker", harbour["worker"].digest])
    assert "Plan rebuild" not in owner.get(worker).content.decode()


# Watches


def watch(client, where, tag="bookworm"):
    return client.post(reverse("lifecycle:watch-add", args=[where.pk]), {"tag": tag})


def rebuilds_tab(client, where):
    return client.get(reverse("lifecycle:repository", args=[where.team.slug, where.name]) + "?tab=rebuilds")


def test_base_page_starts_and_stops_watch(harbour, owner):
    base = Repository.objects.get(name="base/debian")
    assert "No tags are watched." in rebuilds_tab(owner, base).content.decode()
    assert watch(owner, base)["Location"].endswith("?tab=rebuilds")
    row = UpstreamWatch.objects.get()
    assert (row.tag, row.created_by, row.last_digest) == ("bookworm", harbour["reader"], harbour["new"].digest)
    assert "watched by shop-dev" in rebuilds_tab(owner, base).content.decode()
    assert owner.post(reverse("lifecycle:watch-remove", args=[base.pk, row.pk])).status_code == 302
    assert not UpstreamWatch.objects.exists()


def test_user_without_rebuild_right_cannot_watch_and_sees_why(harbour, viewer):
    base = Repository.objects.get(name="base/debian")
    row = waves.watch(base, harbour["reader"])
    text = rebuilds_tab(viewer, base).content.decode()
    assert "You need image.rebuild in team base" in text
    assert reverse("lifecycle:watch-add", args=[base.pk]) not in text
    assert watch(viewer, base).status_code == 403
    assert viewer.post(reverse("lifecycle:watch-remove", args=[base.pk, row.pk])).status_code == 403
    assert watch(browser(dock.user("stranger")), base).status_code == 404
    assert UpstreamWatch.objects.count() == 1


def test_watch_shows_why_a_move_led_to_no_plan(harbour, owner):
    """For example, the watching user lost the right: only admins see the watch's job."""
    base = Repository.objects.get(name="base/debian")
    gone = dock.user("gone")
    row = waves.watch(base, gone)
    Image.objects.update(scanned_at=clock.now())

    def move():
        run = Job.objects.create(kind="plan", subject_id=row.pk, actor=system_user())
        running.run(run.pk)
        return run

    move()
    text = rebuilds_tab(owner, base).content.decode()
    assert "The last move created no plan for gone:" in text
    assert [found.problem for found in queries.watches_of(base)] == [Job.objects.get().last_error]
    Job.objects.update(error_code="crashed", last_error="TypeError: secret")
    assert [found.problem for found in queries.watches_of(base)] == [
        "Planning crashed. An admin can find the error in the jobs list."
    ]
    UpstreamWatch.objects.filter(pk=row.pk).update(last_digest=harbour["new"].digest)
    move()
    assert [found.problem for found in queries.watches_of(base)] == [""]
    assert "created no plan" not in rebuilds_tab(owner, base).content.decode()


def test_unknown_tag_is_refused(harbour, owner):
    answer = watch(owner, Repository.objects.get(name="base/debian"), tag="no tag!")
    assert answer.status_code == 302
    assert "Invalid tag" in owner.get(answer["Location"]).content.decode()
    assert not UpstreamWatch.objects.exists()


def test_repository_lists_waves_that_rebuild_it_or_derived_images(harbour, owner):
    wave = waves.planned(harbour)
    link = reverse("lifecycle:wave", args=[wave.pk])
    for name, is_there in (("base/debian", True), ("shop/api", True), ("shop/jobs", False)):
        text = rebuilds_tab(owner, Repository.objects.get(name=name)).content.decode()
        assert (link in text) is is_there, name


# Recipes


@pytest.mark.parametrize("tab", ["recipe", "rebuilds"])
def test_repository_tab_costs_same_queries_for_one_and_three_rows(tab, harbour, owner):
    base = Repository.objects.get(name="base/debian")
    address = reverse("lifecycle:repository", args=["base", "base/debian"]) + f"?tab={tab}"

    def add(tag):
        waves.planned(harbour)
        waves.recipe(base, harbour["reader"])
        waves.watch(base, harbour["reader"], tag=tag)

    add("bookworm")
    one = _count(owner, address)
    add("12")
    add("stable")
    assert _count(owner, address) == one <= 19


# The inbox


def test_inbox_shows_planned_waves_only_to_users_who_can_confirm(harbour, owner, viewer):
    wave = waves.planned(harbour)
    waves.running(harbour)
    narrow = dock.user("base-only", "owner", of=dock.team("base"))
    dock.user("base-only", "viewer", of=dock.team("shop"))
    link = reverse("lifecycle:wave", args=[wave.pk])
    shown = {
        who: client.get(reverse("lifecycle:inbox")).content.decode()
        for who, client in {"owner": owner, "viewer": viewer, "narrow": browser(narrow)}.items()
    }
    assert {who: link in text for who, text in shown.items()} == {"owner": True, "viewer": False, "narrow": False}
    assert "Rebuilds to confirm" in shown["owner"]
    assert act(owner, "confirm", wave).status_code == 302
    assert link not in owner.get(reverse("lifecycle:inbox")).content.decode()


# Large waves


def test_long_level_shows_urgent_images_and_counts_the_rest(harbour, owner):
    wave = waves.running(harbour)
    image = Image.objects.get(digest=dock.sha("shop/api"))
    for number in range(page_queries.ROWS_MAX + 3):
        where = dock.repository(f"shop/many-{number:03}")
        RebuildJob.objects.create(wave=wave, repository=where, level=1, old_image=image, tag="1.0")
    last = RebuildJob.objects.filter(wave=wave).order_by("-pk").first()
    RebuildJob.objects.filter(pk=last.pk).update(state="failed", problem="exit 1", finished_at=clock.now())
    text = page(owner, wave).content.decode()
    assert f'id="job-{last.pk}"' in text
    assert "5 more: 2 done, 3 waiting." in text
    address = reverse("lifecycle:wave", args=[wave.pk]) + "?level=1"
    whole = owner.get(address).content.decode()
    assert whole.count('id="job-') == page_queries.ROWS_MAX + 3 + 4
    assert f'hx-get="{address}"' in whole


def test_long_advisory_list_is_truncated_with_a_note(harbour, owner):
    wave = waves.running(harbour)
    static = waves.job_of(wave, "shop/static")
    RebuildJob.objects.filter(pk=static.pk).update(fixed=[f"CVE-2026-{number:04}" for number in range(100)])
    text = page(owner, wave).content.decode()
    assert "CVE-2026-0059" in text
    assert "CVE-2026-0060" not in text
    assert "100 in total. Compare the two images to see all." in text


def test_image_without_scan_shows_no_fixes(harbour, owner):
    wave = waves.planned(harbour)
    text = page(owner, wave).content.decode()
    assert "not scanned yet" in text  # the harbour's new base
    dock.carry(harbour["new"], 0, dock.package("perl-base", "5.36.0-7", source="perl"))
    assert "not scanned yet" not in page(owner, wave).content.decode()


def test_list_says_unknown_while_nobody_knows_what_a_wave_fixed(harbour, owner):
    base = Image.objects.get(digest=dock.sha("base/debian new"))
    wave = RebuildWave.objects.create(
        repository=dock.repository("base/debian"), new_base=base, planned_by=harbour["reader"],
        confirmed_by=harbour["reader"], state="running",
    )  # fmt: skip
    recipe = Recipe.objects.create(
        repository=dock.repository("shop/static"), revision=1, containerfile="FROM x", author=harbour["reader"]
    )
    old = {"level": 1, "recipe": recipe, "tag": "1.0", "wave": wave}
    static, python = (
        RebuildJob.objects.create(repository=dock.repository(name), old_image=Image.objects.get(digest=dock.sha(name)),
                                  **old)
        for name in ("shop/static", "base/python")
    )  # fmt: skip
    assert "not known yet" in owner.get("/rebuilds/").content.decode()
    ended = {"state": "done", "finished_at": clock.now(), "new_image": base}
    RebuildJob.objects.filter(pk=static.pk).update(fixed=["CVE-2023-5678"], findings_after=1, **ended)
    text = owner.get("/rebuilds/").content.decode()
    assert "unknown for 1 image" in text
    RebuildJob.objects.filter(pk=static.pk).update(fixed=[])
    RebuildJob.objects.filter(pk=python.pk).update(fixed=[], findings_after=0, **ended)
    text = owner.get("/rebuilds/").content.decode()
    assert "not known yet" not in text
    assert "unknown for" not in text
