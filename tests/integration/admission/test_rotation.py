"""A new authority is used when the clusters that refuse or warn have confirmed that they trust it."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from io import StringIO

import pytest
from cryptography import x509
from django.core.management import call_command

from lifecycle.admission import certificates
from lifecycle.admission.models import AdmissionCount, AdmissionDecision
from lifecycle.admission.rotation import (
    HEARD_WITHIN,
    SETTLED,
    WAITS_FOR,
    tend_certificates,
    why_not_use_new_authority,
)
from lifecycle.admission.services import bundle_for
from lifecycle.alerts.models import Alert
from lifecycle.clusters import services as clusters
from lifecycle.clusters.models import Cluster
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.core.errors import Malformed
from lifecycle.inventory.constants import SILENT_AFTER
from lifecycle.inventory.models import Reporter
from lifecycle.runtime import accepting, drift
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
    Reporter.objects.filter(cluster__slug__in=slugs).update(bundle_at=clock.now() - SETTLED)


def reporter(cluster, name="agent", **more):
    now = clock.now()
    values = {"boot": "b", "sequence": 1, "first_at": now, "seen_at": now, "bundle_at": now} | more
    return Reporter.objects.create(cluster=cluster, name=name, **values)


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
    reporter(binds)
    assert why_not_use_new_authority(folder) == "asks, binds, refuses, warns did not confirm the new bundle."
    present = certificates.state(folder).bundle_sha256
    awaited = ("asks", "binds", "refuses", "warns")
    Reporter.objects.update(bundle_sha256=present)
    for each in Cluster.objects.filter(slug__in=awaited).exclude(slug="binds"):
        reporter(each, bundle_sha256=present)
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


def test_a_cluster_confirms_when_all_its_live_reporters_do(dock, owner, folder):
    north = add(dock, owner, "north")
    certificates.rotate(folder)
    present, earlier = certificates.state(folder).bundle_sha256, clock.now() - SETTLED
    reporter(north, "forger", bundle_sha256=present, bundle_at=earlier)
    agent = reporter(north, bundle_sha256="0" * 64, bundle_at=earlier)
    assert "north did not confirm" in why_not_use_new_authority(folder)
    assert bundle_for(north).confirmed is False
    Reporter.objects.filter(pk=agent.pk).update(bundle_sha256=None)  # it says nothing
    assert "north did not confirm" in why_not_use_new_authority(folder)
    for more in ({"is_import": True}, {"ended_at": clock.now()}, {"seen_at": clock.now() - SILENT_AFTER * 2}):
        Reporter.objects.filter(pk=agent.pk).update(**more)
        assert why_not_use_new_authority(folder) == ""
        Reporter.objects.filter(pk=agent.pk).update(is_import=False, ended_at=None, seen_at=clock.now())
    Reporter.objects.update(seen_at=clock.now() - SILENT_AFTER * 2)  # nobody is there
    assert "north did not confirm" in why_not_use_new_authority(folder)


def test_a_cluster_holds_the_others_back_for_a_week_and_is_an_alert(dock, owner, folder):
    def alarmed():
        drift.sweep(clock.now())
        rows = Alert.objects.filter(kind="admission.authority").exclude(state="resolved")
        return [(row.cluster.slug, row.severity) for row in rows]

    north = add(dock, owner, "north")
    reporter(north, bundle_sha256="0" * 64)
    tend_certificates(folder, NAMES)
    assert alarmed() == []
    before = issuer(folder)
    certificates.rotate(folder)
    tend_certificates(folder, NAMES)
    assert (issuer(folder), alarmed()) == (before, [("north", "high")])
    assert "at the latest" in Alert.objects.get().evidence["why"]
    past = (clock.now() - WAITS_FOR).timestamp()
    os.utime(folder / "tls" / "next-ca.pem", (past, past))
    tend_certificates(folder, NAMES)
    assert issuer(folder) != before
    assert alarmed() == [("north", "critical")]  # its webhooks cannot ask
    tend_certificates(folder, NAMES)
    assert len(alarmed()) == 1
    Reporter.objects.update(
        bundle_sha256=certificates.state(folder).bundle_sha256, bundle_at=clock.now() - SETTLED
    )  # fmt: skip
    tend_certificates(folder, NAMES)
    assert alarmed() == []


def test_reports_say_what_the_webhooks_trust(dock, owner):
    cluster, agent = add(dock, owner, "north"), person("agent", dock.team, "security")

    def known():
        row = Reporter.objects.get(cluster=cluster)
        return row.bundle_sha256, row.bundle_at

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
    one = reporter(cluster, bundle_sha256="0" * 64)
    assert "trust another bundle" in client.get("/clusters/north/").content.decode()
    assert "not confirmed" in run(owner, "admission", "bundle", "--cluster", "north")[2]
    Reporter.objects.filter(pk=one.pk).update(bundle_sha256=present.bundle_sha256)
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
    assert "The new authority waits: north did not confirm the new bundle. It is used on" in text
    present = certificates.state(folder).bundle_sha256
    reporter(Cluster.objects.get(slug="north"), bundle_sha256=present, bundle_at=clock.now() - SETTLED)
    assert "within 15 seconds" in said()
    before = issuer(folder)
    assert "waits" not in said("--use-new-ca")
    assert issuer(folder) != before
