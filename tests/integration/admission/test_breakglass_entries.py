"""What a break-glass annotation opens for controllers: the images of its debt, as long as the debt lets it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lifecycle.admission.loading import load_spool
from lifecycle.admission.models import AdmissionDebt, AdmissionEntry
from lifecycle.admission.server import Application
from lifecycle.admission.services import review_debt
from lifecycle.admission.writing import Writer
from lifecycle.clusters import services as clusters
from lifecycle.clusters.models import Cluster, NamespaceBinding
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.reviews import pod, review, send

pytestmark = pytest.mark.django_db
REASON = {"gravingdock.io/break-glass": "INC-7: shop is down"}
CONTROLLER = "system:serviceaccount:kube-system:statefulset-controller"
HOUR = timedelta(hours=1)


class Glass:
    """A cluster that enforces, its writer, and a server that knows what is in the database and nothing else."""

    def __init__(self, dock, folder):
        self.owner, self.folder = person("boss", dock.team, "owner"), folder
        settings = {"mode": "enforce", "unbound": "deny", "breakglass_subjects": ["user:kim"]}
        clusters.create_cluster(dock.team, "north", actor=self.owner, **settings)
        self.bind(("staging", ""))
        self.secret = clusters.create_secret("north", "admission", actor=self.owner)[1]
        self.writer, self.flushes = Writer(folder), 0
        self.anew()

    def bind(self, *bindings):
        wishes = [BindingWish(pattern, "staging", mode) for pattern, mode in bindings]
        clusters.set_bindings("north", wishes, actor=self.owner)

    def anew(self):
        self.writer.write()
        self.application = Application(self.folder, "https://g.example")

    def ask(self, user, *names, namespace="staging"):
        is_carried = user == CONTROLLER
        images = [f"{rows.registry().host}/shop/api@{rows.sha(name)}" for name in names]
        given = pod(*images, annotations=REASON, owner=("StatefulSet", "web") if is_carried else None)
        more = {"kind": "Pod", "group": ""} if is_carried else {"kind": "StatefulSet", "group": "apps"}
        given = given if is_carried else {"metadata": {"name": "web"}, "spec": {"template": given}}
        document = review(given, namespace=namespace, userInfo={"username": user}, **more)
        return send(self.application, document, f"/admission/north/{self.secret}")[1]["allowed"]

    def load(self):
        self.flushes += 1
        self.application.recorder.flush(now=self.flushes * 1e12)
        load_spool(self.folder)
        self.anew()

    def bring_in(self, *names, **more):
        assert self.ask("kim", *names, **more) is True
        self.load()

    def carries(self, *names, **more):
        return self.ask(CONTROLLER, *names, **more)

    def say(self, outcome, dock):
        debt = AdmissionDebt.objects.get(reviewed_at=None)
        review_debt(debt.cluster, debt.pk, actor=dock.approver, outcome=outcome, comment="I looked.")


@pytest.fixture
def glass(dock, tmp_path, monkeypatch):
    monkeypatch.setattr("lifecycle.admission.queries.READ_AT_ONCE", "SELECT 1")
    for name in ("known", "other"):
        rows.push(dock.repository, rows.image(name), name)
    return Glass(dock, tmp_path)


def test_it_opens_the_images_of_the_object_that_it_came_in_with(glass):
    glass.bring_in("known")
    assert (glass.carries("known"), glass.carries("other"), glass.carries("known", "other")) == (True, False, False)
    glass.bring_in("known", "other")
    assert (glass.carries("known"), glass.carries("other"), glass.carries("known", "other")) == (True, True, True)


def test_it_ends_when_the_debt_is_due_and_a_review_as_justified_opens_it_again(glass, dock):
    glass.bring_in("known")
    assert glass.carries("known")
    AdmissionDebt.objects.update(due_at=clock.now())
    glass.anew()
    assert glass.carries("known") is False
    glass.bring_in("known")  # the same debt: it is due already
    assert glass.carries("known") is False
    glass.say("justified", dock)
    glass.writer.step()  # the review renews the snapshot
    glass.application.look()
    assert glass.carries("known") is True


def test_it_ends_at_once_when_a_reviewer_calls_it_unjustified(glass, dock):
    assert glass.ask("kim", "known") is True
    server = glass.application  # it remembers by itself, too
    glass.load()
    assert glass.carries("known") is True
    glass.say("unjustified", dock)
    glass.writer.step()
    for each in (glass.application, server):
        glass.application = each
        each.look()
        assert glass.carries("known") is False
    assert glass.ask("kim", "known") is True  # a new debt
    assert glass.carries("known") is True
    glass.load()
    assert glass.carries("known") is True
    assert AdmissionDebt.objects.filter(reviewed_at=None).count() == 1
    AdmissionDebt.objects.filter(reviewed_at=None).delete()
    assert not AdmissionEntry.objects.exists()


def test_pods_count_for_the_debt_that_opened_them(glass):
    glass.bring_in("known", "other")
    assert glass.carries("known") is True
    glass.load()
    (debt,) = AdmissionDebt.objects.all()
    assert (debt.count, debt.user_names) == (2, ["kim"])


@pytest.mark.parametrize(
    "meanwhile",
    [
        [("staging", "observe")],  # its own mode
        [],  # unbound namespaces are refused, and bound ones are another rule
        [("stag*", "observe")],
        [("staging", "off")],
    ],
)
def test_entries_from_before_a_binding_enforces_do_not_count(glass, meanwhile):
    glass.bring_in("known")
    assert glass.carries("known") is True
    glass.bind(*meanwhile)
    glass.bind(("staging", "enforce"))
    glass.anew()
    assert glass.carries("known") is False
    glass.bring_in("known")
    assert glass.carries("known") is True


def test_namespaces_of_a_removed_binding_begin_no_earlier_than_it_enforced(glass):
    glass.bind(("*", ""), ("staging", "observe"))
    Cluster.objects.update(enforced_at=clock.now() - HOUR)
    NamespaceBinding.objects.filter(pattern="*").update(enforced_at=clock.now() - HOUR)
    glass.bring_in("known", namespace="shop")
    assert glass.carries("known", namespace="shop") is True
    glass.bind(("*", ""))
    glass.anew()
    assert glass.carries("known", namespace="shop") is False
    began = NamespaceBinding.objects.get().enforced_at
    glass.bind(("*", "enforce"))
    assert NamespaceBinding.objects.get().enforced_at == began
    clusters.change_cluster("north", actor=glass.owner, mode="observe")
    assert NamespaceBinding.objects.get().enforced_at == began  # its own mode
    clusters.change_cluster("north", actor=glass.owner, mode="off")
    assert NamespaceBinding.objects.get().enforced_at is None


def test_namespaces_without_a_binding_have_their_beginning_too(glass):
    glass.bring_in("known", namespace="loose")
    assert glass.carries("known", namespace="loose") is True
    for unbound in ("observe", "deny"):
        clusters.change_cluster("north", actor=glass.owner, unbound=unbound)
    glass.anew()
    assert glass.carries("known", namespace="loose") is False
