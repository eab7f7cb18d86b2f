"""A new authority is used when the clusters that refuse or warn have confirmed that they trust it."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from cryptography import x509
from django.core.management import call_command

from lifecycle.admission import certificates
from lifecycle.admission.models import AdmissionCount, AdmissionDecision
from lifecycle.admission.rotation import HEARD_WITHIN, SETTLED, tend_certificates, why_not_use_new_authority
from lifecycle.clusters import services as clusters
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.core.errors import Malformed
from lifecycle.inventory.models import Reporter
from lifecycle.runtime import accepting
from tests.clients import Caller
from tests.factories.people import person
from tests.factories.running import document

pytestmark = pytest.mark.django_db
NAMES = ["localhost"]


@pytest.fixture
def owner(dock):
    return person("boss", dock.team, "owner")


@pytest.fixture
def folder(tmp_path, settings):
    settings.ADMISSION_FOLDER, settings.ADMISSION_NAMES, settings.ADMISSION_PORT = str(tmp_path), NAMES, 8471
    certificates.ensure(tmp_path, NAMES)
    return tmp_path


def add(dock, owner, slug, mode="enforce", *, asked=timedelta(0)):
    cluster = clusters.create_cluster(dock.team, slug, actor=owner, mode=mode)
    if asked is not None:
        AdmissionCount.objects.create(cluster=cluster, minute=clock.now() - asked, count=1)
    return cluster


def heartbeat(slug, actor, sequence, **more):
    kind = "full" if sequence == 1 else "heartbeat"
    return accepting.accept(slug, json.dumps(document(sequence, kind=kind, **more)).encode(), actor=actor)


def settle(*slugs):
    Cluster.objects.filter(slug__in=slugs).update(bundle_at=clock.now() - SETTLED)


def issuer(folder):
    leaf = x509.load_pem_x509_certificate((folder / "tls" / certificates.CERTIFICATE).read_bytes())
    return leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


def test_new_authority_waits_only_for_clusters_that_are_there(dock, owner, folder):
    add(dock, owner, "asks")
    add(dock, owner, "warns", "warn")
    add(dock, owner, "off", "off")
    add(dock, owner, "observes", "observe")
    add(dock, owner, "gone", asked=HEARD_WITHIN + timedelta(hours=1))
    add(dock, owner, "never-connected", asked=None)
    refuses, binds = (
        add(dock, owner, slug, mode, asked=None) for slug, mode in (("refuses", "enforce"), ("binds", "observe"))
    )
    AdmissionDecision.objects.create(cluster=refuses, key="k", mode="enforce", snapshot_number=1, at=clock.now())
    clusters.set_bindings("binds", [BindingWish("prod", "staging", "enforce")], actor=owner)
    now = clock.now()
    Reporter.objects.create(cluster=binds, name="agent", boot="b", sequence=1, first_at=now, seen_at=now)
    assert why_not_use_new_authority(folder) == "asks, binds, refuses, warns did not confirm the new bundle."
    present = certificates.state(folder).bundle_sha256
    awaited = ("asks", "binds", "refuses", "warns")
    Cluster.objects.filter(slug__in=awaited).update(bundle_sha256=present, bundle_at=now)
    assert why_not_use_new_authority(folder) != ""  # not before all API servers took it up
    settle(*awaited)
    assert why_not_use_new_authority(folder) == ""


def test_new_leaf_is_served_by_itself_after_the_report(dock, owner, folder):
    add(dock, owner, "north")
    agent = person("agent", dock.team, "security")
    before = issuer(folder)
    certificates.rotate(folder)
    present = certificates.state(folder).bundle_sha256
    tend_certificates(folder, NAMES)
    assert issuer(folder) == before
    heartbeat("north", agent, 1, bundle_sha256="0" * 64)
    settle("north")
    tend_certificates(folder, NAMES)
    assert issuer(folder) == before
    heartbeat("north", agent, 2, bundle_sha256=present)
    tend_certificates(folder, NAMES)
    assert issuer(folder) == before
    settle("north")
    tend_certificates(folder, NAMES)
    assert issuer(folder) != before
    state = certificates.state(folder)
    assert (state.bundle_sha256, state.is_rotating, state.keeps_old) == (present, False, True)


def test_reports_say_what_the_webhooks_trust(dock, owner):
    cluster, agent = add(dock, owner, "north"), person("agent", dock.team, "security")

    def known():
        cluster.refresh_from_db()
        return cluster.bundle_sha256, cluster.bundle_at

    heartbeat("north", agent, 1, bundle_sha256="a" * 64)
    first = known()
    assert (first[0], first[1] is not None) == ("a" * 64, True)
    heartbeat("north", agent, 2)  # an older agent says nothing
    heartbeat("north", agent, 3, bundle_sha256="a" * 64)
    assert known() == first
    heartbeat("north", agent, 4, bundle_sha256="")
    assert known()[0] == ""
    with pytest.raises(Malformed, match="bundle_sha256"):
        heartbeat("north", agent, 5, bundle_sha256="a")
    clusters.change_cluster("north", actor=owner, mode="warn")
    assert known()[0] == ""


def test_api_page_and_command_line_say_whether_it_is_trusted(dock, owner, folder, run, client):
    cluster, api = add(dock, owner, "north"), Caller(owner)
    present = certificates.state(folder)
    shown = api.get("clusters/north/bundle/").json()
    assert (shown["bundle"], shown["sha256"], shown["confirmed"]) == (present.bundle, present.bundle_sha256, False)
    client.force_login(owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert "No agent reported" in client.get("/clusters/north/").content.decode()
    Cluster.objects.filter(pk=cluster.pk).update(bundle_sha256="0" * 64, bundle_at=clock.now())
    assert "trust another bundle" in client.get("/clusters/north/").content.decode()
    assert "not confirmed" in run(owner, "admission", "bundle", "--cluster", "north")[2]
    Cluster.objects.filter(pk=cluster.pk).update(bundle_sha256=present.bundle_sha256)
    assert api.get("clusters/north/bundle/").json()["confirmed"] is True
    assert "Trusted" in client.get("/clusters/north/").content.decode()
    code, out, _ = run(owner, "admission", "bundle", "--cluster", "north")
    assert (code, out) == (0, present.bundle)
    assert json.loads(run(owner, "admission", "bundle", "--cluster", "north", "--json")[1])["confirmed"] is True


def test_command_names_whom_it_waits_for(dock, owner, folder):
    add(dock, owner, "north")
    add(dock, owner, "lab", "observe")

    def said(*words):
        out = StringIO()
        call_command("admission_certificate", *words, stdout=out)
        return out.getvalue()

    text = said("--rotate-ca")
    assert "north: Its agent reported no bundle." in text
    assert "lab: Its agent reported no bundle. Apply the manifest again. Not awaited" in text
    assert "The new authority waits: north did not confirm the new bundle." in text
    present = certificates.state(folder).bundle_sha256
    Cluster.objects.update(bundle_sha256=present, bundle_at=clock.now() - SETTLED)
    assert "within 15 seconds" in said()
    before = issuer(folder)
    assert "waits" not in said("--use-new-ca")
    assert issuer(folder) != before
