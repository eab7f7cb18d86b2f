"""Deleting a whole repository: what keeps it, what goes, and that the job can run twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lifecycle.audit.models import AuditEvent
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.ingest import removing
from lifecycle.jobs.handlers import JobRun
from lifecycle.jobs.models import Job
from lifecycle.registry.models import Repository, RepositoryImage, Tag
from tests.clients import Caller, browser
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.shop import make_request

pytestmark = pytest.mark.django_db


class Registry:
    """Answers deletions, and remembers them."""

    def __init__(self) -> None:
        self.deleted: list[tuple[str, str]] = []

    def delete_manifest(self, repository: str, digest: Any) -> bool:
        self.deleted.append((repository, digest.text))
        return True


class Run(JobRun):
    """A run without a lease."""

    def __init__(self, job: Job) -> None:
        self.job, self.logged = job, []

    def check(self) -> None:
        """There is no lease to lose."""

    def fenced(self) -> Any:
        from django.db import transaction

        return transaction.atomic()

    def log(self, text: str) -> None:
        self.logged.append(text)

    def progress(self, done: int, total: int, text: str = "") -> None:
        self.logged.append(text)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()
    monkeypatch.setattr(removing, "client_for", lambda _: made)
    return made


def test_repository_goes_with_its_images_and_leaves_its_events(dock: SimpleNamespace, registry: Registry) -> None:
    platform = rows.image("platform")
    index = rows.index("index", platform)
    rows.push(dock.repository, index, "2.0")
    RepositoryImage.objects.create(repository=dock.repository, image=platform, is_top_level=False)
    job = removing.delete_repository(dock.repository.pk, actor=dock.owner, name="shop/api")
    dock.repository.refresh_from_db()
    assert dock.repository.is_archived  # nobody pushes meanwhile
    removing.run_removal(Run(job))
    assert registry.deleted == [
        ("shop/api", index.digest), ("shop/api", dock.image.digest), ("shop/api", platform.digest)
    ]  # fmt: skip
    assert not Repository.objects.filter(name="shop/api").exists()
    assert not Tag.objects.exists()
    event = AuditEvent.objects.get(action="repository.deleted")
    assert (event.repository, event.details["images"], event.actor) == ("shop/api", 3, dock.owner)
    again = Run(job)
    removing.run_removal(again)
    assert again.logged == ["Nothing to do. The repository is gone."]
    assert browser(dock.owner).get(f"/audit/{event.pk}/").status_code == 200
    assert browser(dock.owner).get(f"/jobs/{job.pk}/").status_code == 200


def test_history_keeps_a_repository(dock: SimpleNamespace, registry: Registry) -> None:
    make_request(dock)
    page = browser(dock.owner).get("/t/shop/r/shop/api/-/delete/").content.decode()
    assert "1 promotion request" in page
    with pytest.raises(Conflict, match="is open"):
        removing.delete_repository(dock.repository.pk, actor=dock.owner, name="shop/api")
    other = rows.repository("shop/free", dock.team)
    assert removing.kept_by(other) == []
    job = removing.delete_repository(other.pk, actor=dock.owner, name="shop/free")
    rows.derive(dock.image, rows.image("derived"))
    Repository.objects.create(
        registry=other.registry, team=dock.team, name="dev/shop/free", family="shop/free", source=other,
        environment=dock.dev,
    )  # fmt: skip
    with pytest.raises(Conflict, match="1 repository"):  # what came since the request is seen
        removing.run_removal(Run(job))
    assert registry.deleted == []


def test_only_who_manages_and_deletes_removes_a_repository(dock: SimpleNamespace, registry: Registry) -> None:
    for actor, error in (
        (dock.outsider, NotFound), (dock.requester, NotPermitted), (person("m", dock.team, "maintainer"), NotPermitted)
    ):  # fmt: skip
        with pytest.raises(error):
            removing.delete_repository(dock.repository.pk, actor=actor, name="shop/api")
    with pytest.raises(Malformed, match="to confirm"):
        removing.delete_repository(dock.repository.pk, actor=dock.owner, name="shop/other")
    page = browser(dock.owner).post("/t/shop/r/shop/api/-/delete/", {"name": "shop/other"})
    assert (page.status_code, "shop/other" in page.content.decode()) == (422, True)
    assert not Job.objects.filter(kind="delete").exists()
    assert Caller(dock.owner).delete(f"repositories/{dock.repository.pk}/?name=shop/api").status_code == 202


def test_command_asks_for_a_confirmation(dock: SimpleNamespace, run: Any) -> None:
    assert run(dock.owner, "repository", "delete", "shop/api")[0] == 2
    assert not Job.objects.filter(kind="delete").exists()
    assert run(None, "repository", "delete", "shop/api", "--yes")[0] == 0
    assert Job.objects.get(kind="delete").payload == {"all": "shop/api"}
