"""Descriptions, and the deletion of tags, images and teams: who may, what stops it, and what is left."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts.models import Role, Team, User
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.projection import differs
from lifecycle.authority.queries import images_visible_to
from lifecycle.authority.services import create_team, delete_team, move_repositories, rename_team
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.environments.models import Environment
from lifecycle.ingest import managing
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.promotion import services as promotions
from lifecycle.rebuild.models import BuilderPermit, RebuildWave
from lifecycle.registry.models import Repository, RepositoryImage, Tag
from tests.factories import dock as rows
from tests.factories.people import person

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


class Registry:
    """Notes what is deleted. `tags` is what the registry says of a tag."""

    def __init__(self, tags=None):
        self.calls, self._tags = [], tags or {}

    def resolve(self, repository, tag):
        return self._tags.get(tag)

    def delete_tag(self, repository, tag):
        self.calls.append((repository, tag))
        return True

    def delete_manifest(self, repository, digest):
        self.calls.append((repository, digest.text))
        return True


@pytest.fixture
def registry(monkeypatch):
    made = Registry()
    monkeypatch.setattr("lifecycle.ingest.managing.client_for", lambda _: made)
    return made


@pytest.fixture
def maintainer(dock):
    return person("maintainer", dock.team, "maintainer")


def test_description_is_changed_by_a_maintainer_only(dock, maintainer):
    managing.describe_repository(dock.repository.pk, "  The  shop. ", actor=maintainer)
    dock.repository.refresh_from_db()
    assert dock.repository.description == "The shop."
    event = AuditEvent.objects.get(action="repository.described")
    assert event.details == {"before": "", "after": "The shop."}
    for user, error in ((dock.requester, NotPermitted), (dock.outsider, NotFound)):
        with pytest.raises(error):
            managing.describe_repository(dock.repository.pk, "x", actor=user)
    with pytest.raises(Malformed):
        managing.describe_repository(dock.repository.pk, "x" * 301, actor=maintainer)
    managing.describe_repository(dock.repository.pk, "The shop.", actor=maintainer)  # no change, no event
    assert AuditEvent.objects.filter(action="repository.described").count() == 1


def test_image_is_deleted_in_the_registry_and_then_here(dock, maintainer, registry):
    job = managing.delete_image(dock.repository.pk, dock.image.digest, actor=maintainer)
    assert RepositoryImage.objects.get().removed_at is None  # nothing is gone before the registry said so
    running.run(job.pk)
    assert registry.calls == [("shop/api", dock.image.digest)]
    assert RepositoryImage.objects.get().removed_at is not None
    assert Tag.objects.get().image is None
    events = AuditEvent.objects.filter(action__startswith="image.delet").order_by("pk")
    assert [event.action for event in events] == ["image.deletion_requested", "image.deleted"]
    assert {event.actor_name for event in events} == {"maintainer"}
    again = Job.objects.create(kind="delete", subject_id=dock.repository.pk, actor=maintainer, payload=job.payload)
    running.run(again.pk)
    again.refresh_from_db()
    assert again.state == "succeeded"


def test_tag_is_deleted_and_its_image_stays(dock, maintainer, registry):
    job = managing.delete_tag(dock.repository.pk, "1.0", actor=maintainer)
    running.run(job.pk)
    assert registry.calls == [("shop/api", "1.0")]
    assert Tag.objects.get().image is None
    assert RepositoryImage.objects.get().removed_at is None


def test_tag_that_has_moved_on_is_kept(dock, maintainer, registry):
    job = managing.delete_tag(dock.repository.pk, "1.0", actor=maintainer)
    rows.push(dock.repository, rows.image("newer"), "1.0")
    running.run(job.pk)
    assert registry.calls == []
    assert Tag.objects.get().image is not None


def test_right_lost_before_the_job_runs_stops_it(dock, maintainer, registry):
    job = managing.delete_image(dock.repository.pk, dock.image.digest, actor=maintainer)
    RoleGrant.objects.filter(user=maintainer).delete()
    running.run(job.pk)
    job.refresh_from_db()
    assert (job.state, registry.calls) == ("failed", [])


def test_deletion_is_refused_without_the_right_and_while_needed(dock, maintainer, request_):
    for user, error in ((dock.requester, NotPermitted), (dock.approver, NotPermitted), (dock.outsider, NotFound)):
        with pytest.raises(error):
            managing.delete_image(dock.repository.pk, dock.image.digest, actor=user)
        with pytest.raises(error):
            managing.delete_tag(dock.repository.pk, "1.0", actor=user)
    with pytest.raises(Conflict, match=f"PR-{request_.pk} is not finished"):
        managing.delete_image(dock.repository.pk, dock.image.digest, actor=maintainer)
    promotions.withdraw(request_.pk, actor=dock.requester)
    managing.delete_image(dock.repository.pk, dock.image.digest, actor=maintainer)
    with pytest.raises(NotFound):
        managing.delete_tag(dock.repository.pk, "no-such", actor=maintainer)
    assert Job.objects.filter(kind="delete").count() == 1


def test_platform_of_an_index_is_not_deleted_alone(dock, maintainer):
    top = rows.index("both", dock.image)
    RepositoryImage.objects.create(repository=dock.repository, image=top)
    with pytest.raises(Conflict, match="platform of the index"):
        managing.delete_image(dock.repository.pk, dock.image.digest, actor=maintainer)
    managing.delete_image(dock.repository.pk, top.digest, actor=maintainer)


def test_protected_tag_needs_amend_too(dock):
    Role.objects.create(slug="cleaner", name="Cleaner", verbs=["image.view", "image.delete"])
    cleaner = person("cleaner", dock.team, "cleaner")
    dock.repository.protected_tags = ["1.*"]
    dock.repository.save()
    with pytest.raises(NotPermitted, match="protected"):
        managing.delete_tag(dock.repository.pk, "1.0", actor=cleaner)
    with pytest.raises(NotPermitted, match="protected"):
        managing.delete_image(dock.repository.pk, dock.image.digest, actor=cleaner)
    dock.repository.protected_tags = []
    dock.repository.save()
    managing.delete_tag(dock.repository.pk, "1.0", actor=cleaner)


def test_nothing_is_deleted_from_an_environment(dock, maintainer):
    target = rows.repository("dev/shop/api", dock.team)
    target.environment, target.source, target.family = dock.dev, dock.repository, "shop/api"
    target.save()
    rows.push(target, dock.image, "1.0")
    with pytest.raises(Malformed, match="Only promotions"):
        managing.delete_image(target.pk, dock.image.digest, actor=maintainer)
    with pytest.raises(Malformed, match="Only promotions"):
        managing.delete_tag(target.pk, "1.0", actor=maintainer)


def browser(user):
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


def test_pages_show_what_depends_and_keep_refused_settings(dock, maintainer):
    client, place = browser(maintainer), "/t/shop/r/shop/api/"
    base = rows.image("child", layers=4)
    rows.push(rows.repository("shop/child", dock.team), base, "2.0")
    rows.derive(dock.image, base)
    page = client.get(f"{place}i/{dock.image.digest}/delete/").content.decode()
    assert "shop/child:2.0" in page
    assert "1 image" in page
    refused = client.post(place + "-/protect/", {"patterns": "ok\nnot ok!"})
    assert refused.status_code == 422
    assert "not ok!" in refused.content.decode()
    assert client.post(place + "-/protect/", {"patterns": "1.*\nv*"}).status_code == 302
    dock.repository.refresh_from_db()
    assert dock.repository.protected_tags == ["1.*", "v*"]
    refused = client.post(place + "-/describe/", {"description": "y" * 400})
    assert (refused.status_code, "y" * 400 in refused.content.decode()) == (422, True)
    Tag.objects.filter(image=dock.image).delete()
    assert dock.image.digest in client.get(place + "?tab=untagged").content.decode()


def test_team_is_renamed_by_its_owner_and_deleted_by_an_admin_when_empty(dock):
    admin = User.objects.create(username="admin", is_superuser=True)
    rename_team(dock.team.pk, actor=dock.owner, name="The Shop")
    assert Team.objects.get(pk=dock.team.pk).name == "The Shop"
    with pytest.raises(NotPermitted):
        rename_team(dock.team.pk, actor=dock.approver, name="x")
    with pytest.raises(NotPermitted):
        delete_team(dock.team.pk, actor=dock.owner)
    with pytest.raises(Conflict, match="1 repository, 2 environments"):
        delete_team(dock.team.pk, actor=admin)
    empty = Team.objects.create(slug="empty", name="Empty")
    person("member", empty, "owner")
    with pytest.raises(NotFound):
        delete_team(empty.pk, actor=dock.owner)
    delete_team(empty.pk, actor=admin)
    assert not Team.objects.filter(slug="empty").exists()
    event = AuditEvent.objects.get(action="team.deleted")
    assert (event.details["slug"], event.details["grants"]) == ("empty", 1)
    assert browser(admin).get(f"/audit/{event.pk}/").status_code == 200


def test_repositories_move_to_another_team_so_that_theirs_can_be_deleted(dock):
    admin = User.objects.create(username="admin", is_superuser=True)
    web = create_team(actor=admin, slug="web", name="Web")
    member = person("member", web, "viewer")
    Repository.objects.filter(environment__isnull=False).delete()
    with pytest.raises(NotFound):  # the owner of the old team does not see the other one
        move_repositories(dock.team.pk, actor=dock.owner, to="web")
    RoleGrant.objects.create(team=web, user=dock.owner, role=Role.objects.get(slug="viewer"))
    with pytest.raises(NotPermitted):
        move_repositories(dock.team.pk, actor=dock.owner, to="web")
    RoleGrant.objects.create(team=web, user=dock.owner, role=Role.objects.get(slug="owner"))
    with pytest.raises(NotFound, match="no repository shop/none"):
        move_repositories(dock.team.pk, actor=dock.owner, to="web", names=["shop/api", "shop/none"])
    with pytest.raises(Conflict, match="already belong"):
        move_repositories(dock.team.pk, actor=dock.owner, to="shop")
    assert not images_visible_to(member).exists()
    assert [row.name for row in move_repositories(dock.team.pk, actor=dock.owner, to="web")] == ["shop/api"]
    dock.repository.refresh_from_db()
    assert (dock.repository.team, dock.repository.name) == (web, "shop/api")
    assert images_visible_to(member).exists()
    assert not images_visible_to(dock.requester).exists()
    assert not any(differs(user) for user in (member, dock.requester, dock.owner))
    events = AuditEvent.objects.filter(action__contains="moved", action__startswith="repository").order_by("pk")
    assert [(row.team, row.details["before"], row.details["after"]) for row in events] == [(web, "shop", "web")]
    event = AuditEvent.objects.get(action="team.repositories_moved")
    assert (event.team, event.details["repositories"]) == (dock.team, ["shop/api"])
    for row in (event, *events):
        assert browser(admin).get(f"/audit/{row.pk}/").status_code == 200
    Environment.objects.filter(team=dock.team).delete()
    delete_team(dock.team.pk, actor=admin)
    with pytest.raises(Conflict, match="no repositories"):
        move_repositories(create_team(actor=admin, slug="shop", name="").pk, actor=admin, to="web")


def test_move_names_what_stands_on_a_repository(dock):
    admin = User.objects.create(username="admin", is_superuser=True)
    create_team(actor=admin, slug="web", name="Web")
    request = promotions.request_promotion(
        dock.repository, dock.image.digest, dock.staging, actor=dock.requester, reason="x"
    )
    wave = RebuildWave.objects.create(repository=dock.repository, new_base=dock.image, planned_by=dock.owner)
    BuilderPermit.objects.create(repository=dock.repository, turned_on_by=admin)
    with pytest.raises(Conflict) as refused:
        move_repositories(dock.team.pk, actor=admin, to="web")
    for phrase in (f"{request} is open", f"{wave} is planned", "the embedded builder is on"):
        assert phrase in refused.value.message
    client = browser(admin)
    page = client.get("/teams/shop/move/").content.decode()
    assert f"{request} is open" in page
    assert client.post("/teams/shop/move/", {"to": "web", "names": "shop/api"}).status_code == 422
    promotions.withdraw(request.pk, actor=dock.requester)
    wave.delete()
    BuilderPermit.objects.all().delete()
    target = dock.repository.targets.first()
    if target is None:
        target = Repository.objects.create(
            registry=dock.repository.registry, team=dock.team, name="dev/shop/api", family="shop/api",
            source=dock.repository, environment=dock.dev,
        )  # fmt: skip
    with pytest.raises(Conflict, match=f"promoted to {target.environment.slug}"):
        move_repositories(dock.team.pk, actor=admin, to="web")
    Repository.objects.filter(source=dock.repository).delete()
    assert client.post("/teams/shop/move/", {"to": "web", "names": "shop/api"}).status_code == 302
    assert Repository.objects.get(name="shop/api").team.slug == "web"


def test_events_of_a_deleted_team_can_still_be_read(dock):
    admin = User.objects.create(username="admin", is_superuser=True)
    team = create_team(actor=admin, slug="mine", name="Mine")
    delete_team(team.pk, actor=admin)
    event = AuditEvent.objects.get(action="team.created")
    client = browser(admin)
    assert client.get(f"/audit/{event.pk}/").status_code == 200
    assert client.get("/audit/").status_code == 200
    assert client.get("/api/v1/audit-events/").json()["results"][0]["team"] is None
