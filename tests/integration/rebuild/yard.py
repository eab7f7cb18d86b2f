"""Five images on four levels in a registry in memory, and how their jobs run one by one.

Only syft is replaced: its package list is stored as a scan stores it.
"""

from __future__ import annotations

from django.db import connection

from lifecycle.core import clock
from lifecycle.core.errors import RegistryUnavailable
from lifecycle.ingest import services as ingest
from lifecycle.jobs import running as job_runs
from lifecycle.jobs.models import Job
from lifecycle.rebuild import planning, services
from lifecycle.registry.models import Image, Tag
from lifecycle.sbom.packages import Package
from lifecycle.sbom.services import Content, store
from tests.factories import dock, oci
from tests.fakes.registry import InMemoryRegistry


class Strict(InMemoryRegistry):
    """Refuses every call made inside a transaction of the code under test."""

    depth = 0
    is_away = False

    def _find(self, repository, reference):
        assert len(connection.savepoint_ids) <= self.depth, "the network inside a transaction"
        return super()._find(repository, reference)

    def fetch_blob(self, *words, **more):
        if self.is_away:
            raise RegistryUnavailable("The registry answered 503.")
        assert len(connection.savepoint_ids) <= self.depth, "the network inside a transaction"
        return super().fetch_blob(*words, **more)


class Yard:
    """base/debian -> base/python -> shop/api -> shop/worker, and shop/static on base/debian. None has a recipe."""

    def __init__(self, shelf):
        self.shelf = shelf
        self.owner = dock.user("owner", "owner", of=dock.team("base"))
        dock.user("owner", "owner", of=dock.team("shop"))
        self.packages: dict[str, list[str]] = {}
        self.layers: dict[str, tuple[str, ...]] = {}

    def push(self, name, *layers, tag="latest", on="", packages=("openssl", "1"), rounds=40):
        """Push an image with the layers of the current `on` image first. A scan lists its packages."""
        dock.repository(name)
        texts = (*self.layers.get(on, ()), *layers)
        self.layers[name] = texts
        item = oci.image(*texts)
        oci.push(self.shelf, name, item, tag)
        digest = item.manifest.digest.text
        self.packages[texts[0]] = [f"pkg:deb/debian/{packages[0]}@{packages[1]}?distro=debian-12"]
        image = ingest.ingest_manifest(dock.registry().pk, name, digest, tag=tag)
        self.settle(rounds=rounds)
        return image

    def four_levels(self):
        self.push("base/debian", "debian 1")
        self.push("base/python", "python", on="base/debian")
        self.push("shop/api", "api", on="base/python")
        self.push("shop/worker", "worker", on="shop/api")
        self.push("shop/static", "static", on="base/debian")

    def settle(self, *, rounds=40):
        """Run every waiting job, rebuilds last, until none is left."""
        for _ in range(rounds):
            Job.objects.filter(state=Job.State.WAITING).update(not_before=None)
            waiting = sorted(Job.objects.filter(state="waiting"), key=lambda job: (job.kind == "rebuild", job.pk))
            if not waiting:
                return
            for job in waiting:
                self.run(job)
        raise AssertionError(f"jobs without end: {list(Job.objects.filter(state='waiting').values())}")

    def run(self, job):
        if job.kind == "scan":
            Job.objects.filter(pk=job.pk).update(state=Job.State.SUCCEEDED, finished_at=clock.now())
            image = Image.objects.get(pk=job.subject_id)
            first = image.config["history"][0]["created_by"].removeprefix("COPY ")
            found = [Package(purl, layer_position=0) for purl in self.packages.get(first, ())]
            store({image.pk: Content(found, distro="debian-12")}, actor=self.owner)
            return
        job_runs.run(job.pk)

    def wave(self, base="base/debian:latest", *, by=None):
        wave = planning.plan_wave(base, actor=by or self.owner)
        return services.confirm_wave(wave.pk, actor=by or self.owner)

    def tag(self, name, tag="latest"):
        return Tag.objects.get(repository__name=name, name=tag).image

    def bases(self, name):
        return {edge.base.digest for edge in self.tag(name).base_edges.all()}
