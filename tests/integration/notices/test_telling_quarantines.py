"""Who is told about quarantines, once, and that nobody learns of a base that they cannot see."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import Role
from lifecycle.authority.models import RoleGrant
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.notices import quarantines as telling
from lifecycle.notices.models import Channel, InboxItem, Message, Notice
from lifecycle.notices.queries import unread_count
from lifecycle.quarantine import services
from tests.factories import dock as rows
from tests.factories.people import person

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
WHY = "contains a backdoor"


@pytest.fixture
def guard(dock: Any) -> Any:
    return person("guard", dock.team, "security")


@pytest.fixture
def other_guard(dock: Any) -> Any:
    return person("other-guard", dock.team, "security")


def block(image: Any, guard: Any, **more: Any) -> Any:
    row = services.quarantine(image.digest, actor=guard, reason=WHY, **more)
    run_jobs()
    return row


def run_jobs() -> None:
    for job in Job.objects.filter(kind="quarantine", state=Job.State.WAITING):
        running.run(job.pk)
        job.refresh_from_db()
        assert job.state == Job.State.SUCCEEDED, job.last_error


def told(topic: str) -> set[str]:
    return set(InboxItem.objects.filter(notice__topic=topic).values_list("person__username", flat=True))


def test_team_of_the_image_is_told_once(dock: Any, guard: Any) -> None:
    viewer = person("viewer", dock.team, "viewer")
    row = block(dock.image, guard)
    everybody = {"requester", "approver", "second", "deployer", "owner"}
    assert told("quarantine.set") == everybody  # not guard, who did it, nor the viewer, whom it does not stop
    notice = Notice.objects.get(topic="quarantine.set")
    assert (notice.subject, notice.link) == (f"{row}: shop/api@{dock.image.digest[:19]}", f"/quarantines/{row.pk}/")
    assert (notice.text, notice.actor_name) == (
        f"This image is quarantined: nobody can promote it or build on it. Reason: {WHY}",
        "guard",
    )
    telling.tell_begin(row.pk)  # a worker that was killed runs it again
    assert Notice.objects.filter(topic="quarantine.set").count() == 1
    assert unread_count(dock.approver) == 1
    assert unread_count(viewer) == 0


def test_owners_of_what_is_built_on_it_are_told_about_their_own_image(dock: Any, guard: Any) -> None:
    app = rows.image("app")
    rows.derive(dock.image, app)
    web = rows.repository("web/site")
    rows.push(web, app, "2.0")
    dev = rows.user("webdev", "creator", of=web.team)
    rows.user("watcher", "viewer", of=web.team)
    bystander = rows.repository("other/tool")
    rows.push(bystander, rows.image("unrelated"), "1")
    rows.user("bystander", "owner", of=bystander.team)
    row = block(dock.image, guard)
    assert told("quarantine.set") == {"requester", "approver", "second", "deployer", "owner", "webdev"}
    notice = InboxItem.objects.get(person=dev).notice
    assert (notice.subject, notice.repository) == (f"{row}: web/site@{app.digest[:19]}", web)
    assert notice.link == f"/t/web/r/web/site/i/{app.digest}/"
    assert notice.text.startswith("The image is built on an image that is quarantined")
    assert "shop" not in notice.subject + notice.text + notice.link + str(notice.facts) + notice.actor_name
    client = Client()
    client.force_login(dev, backend=BACKEND)
    assert client.get(notice.link).status_code == 200
    assert client.get(f"/quarantines/{row.pk}/").status_code == 404  # so it is not linked


def test_without_descendants_their_owners_are_not_told(dock: Any, guard: Any) -> None:
    app = rows.image("app")
    rows.derive(dock.image, app)
    web = rows.repository("web/site")
    rows.push(web, app, "2.0")
    dev = rows.user("webdev", "creator", of=web.team)
    block(dock.image, guard, descendants=False)
    assert not InboxItem.objects.filter(person=dev).exists()


def test_team_with_several_repositories_gets_one_notice_and_others_what_they_see(dock: Any, guard: Any) -> None:
    web = rows.team("web")
    for number in range(3):
        app = rows.image(f"app {number}")
        rows.derive(dock.image, app)
        rows.push(rows.repository(f"web/site-{number}"), app, "1")
    rows.user("webdev", "creator", of=web)
    partly = person("partly")
    creator = Role.objects.get(slug="creator")
    RoleGrant.objects.create(user=partly, team=web, role=creator, repository_pattern="web/site-1")
    hook = {"kind": "webhook", "topics": ["quarantine.set", "quarantine.lifted"], "created_by": dock.owner}
    channel = Channel.objects.create(team=web, name="hook", **hook)
    row = block(dock.image, guard)
    whole = InboxItem.objects.get(person__username="webdev").notice
    assert (whole.repository, whole.team, whole.subject) == (None, web, f"{row}: images of team web")
    assert whole.text.startswith(f"{row} covers 3 images in 3 repositories of team web")
    assert whole.link == "/images/?team=web"
    assert InboxItem.objects.get(person=partly).notice.repository.name == "web/site-1"
    assert Message.objects.filter(channel=channel).count() == 1
    services.request_release(row.pk, actor=guard, reason="wrong alarm")
    services.release(row.pk, actor=dock.owner)
    run_jobs()
    lifted = InboxItem.objects.filter(notice__topic="quarantine.lifted", person__username__in=("webdev", "partly"))
    assert sorted(lifted.values_list("person__username", "notice__link")) == [
        ("partly", f"/t/web/r/web/site-1/i/{rows.sha('app 1')}/"),
        ("webdev", "/images/?team=web"),
    ]
    # They see nothing of the base, so that they do not read who lifted its quarantine either.
    assert set(lifted.values_list("notice__actor_name", flat=True)) == {""}
    assert Message.objects.filter(channel=channel).count() == 2


def test_lift_is_asked_of_those_who_can_and_told_to_all(dock: Any, guard: Any, other_guard: Any) -> None:
    row = block(dock.image, guard)
    services.request_release(row.pk, actor=guard, reason="It was a false alarm.")
    assert told("quarantine.lift_asked") == {"other-guard", "owner"}
    text = Notice.objects.get(topic="quarantine.lift_asked").text
    assert text == "guard asks to lift the quarantine. It still blocks the image. Reason: It was a false alarm."
    services.refuse_release(row.pk, actor=other_guard, reason="Not proven.")
    assert told("quarantine.lifted") == {"guard"}
    assert Notice.objects.get(topic="quarantine.lifted").text.endswith("Reason: Not proven.")
    assert not InboxItem.objects.filter(notice__topic="quarantine.lift_asked", read_at=None).exists()
    services.request_release(row.pk, actor=guard, reason="Proven now.")
    services.release(row.pk, actor=other_guard)
    run_jobs()
    telling.tell_lifted(row.pk)
    lifted = Notice.objects.filter(topic="quarantine.lifted", text__startswith="The quarantine was lifted").get()
    people = set(lifted.items.values_list("person__username", flat=True))
    assert people == {"guard", "requester", "approver", "second", "deployer", "owner"}
    assert not InboxItem.objects.filter(notice__topic="quarantine.set", read_at=None).exists()


def test_quarantine_lifted_before_the_job_ran_tells_nobody(dock: Any, guard: Any, other_guard: Any) -> None:
    row = services.quarantine(dock.image.digest, actor=guard, reason=WHY)
    services.request_release(row.pk, actor=guard, reason="mistake")
    services.release(row.pk, actor=other_guard)
    run_jobs()
    assert told("quarantine.set") == told("quarantine.lifted") == set()
    again = block(dock.image, guard)
    assert Notice.objects.filter(thread=f"quarantine-{again.pk}", topic="quarantine.set").exists()
