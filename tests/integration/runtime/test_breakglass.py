"""Alerts of break-glass: there while nobody else reviewed it, and gone afterwards."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from lifecycle.admission.models import AdmissionDebt
from lifecycle.admission.services import review_debt
from lifecycle.alerts import services as alerts
from lifecycle.alerts.models import Alert
from lifecycle.core import clock
from lifecycle.core.errors import IllegalTransition, NotPermitted
from lifecycle.notices.models import Notice
from lifecycle.runtime import drift
from tests.factories import dock as rows
from tests.factories.people import person
from tests.factories.running import cluster, entry, report

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(dock):
    return person("boss", dock.team, "owner")


@pytest.fixture
def image(dock):
    made = rows.image("one")
    rows.push(dock.repository, made, "1.0")
    return made


@pytest.fixture
def north(dock):
    return cluster(dock.team)


def owe(where, *digests, name="web", by="kim"):
    now = clock.now()
    return AdmissionDebt.objects.create(
        cluster=where, namespace="prod", workload_kind="Deployment", workload_name=name, digests=list(digests),
        fingerprint=f"{where}-{name}-{digests}"[:64], decision_key=f"key-{name}", reason="INC-7: shop is down",
        user_name=by, opened_at=now, last_at=now, due_at=now + timedelta(hours=24),
    )  # fmt: skip


def live():
    drift.sweep(clock.now())
    return list(Alert.objects.filter(kind="breakglass").exclude(state="resolved").order_by("pk"))


def test_one_alert_for_each_debt_until_another_person_reviewed_it(dock, north, owner, image):
    first, other = owe(north, image.digest), owe(north, rows.sha("two"), name="job")
    live()
    one, two = live()
    assert (one.team, one.cluster, one.severity) == (dock.team, north, "high")
    assert (one.namespace, one.workload) == ("prod", "Deployment/web")
    assert one.evidence["why"].startswith("kim broke the glass")
    assert Notice.objects.filter(topic="breakglass").count() == 1
    first.user_name = owner.username
    first.save()
    with pytest.raises(NotPermitted):
        review_debt(north, first.pk, actor=owner, outcome="justified", comment="I did it.")
    assert live() == [one, two]
    review_debt(north, first.pk, actor=dock.approver, outcome="justified", comment="It was down.")
    assert live() == [two]
    review_debt(north, other.pk, actor=owner, outcome="unjustified", comment="It was not.")
    assert live() == []
    one.refresh_from_db()
    assert (one.state, one.resolved_by) == ("resolved", None)


def test_what_was_not_justified_is_an_alert_until_it_does_not_run_any_more(dock, north, owner, image):
    agent = person("agent", dock.team, "security")
    running = {"namespace": "prod", "workload": {"kind": "Deployment", "name": "web"}}
    report(north, agent, 1, entry(image.digest, where=dock.repository, **running))
    first = owe(north, image.digest)
    owe(north, rows.sha("two"))  # another image of the workload
    alert = live()[0]
    for debt in AdmissionDebt.objects.all():
        review_debt(north, debt.pk, actor=dock.approver, outcome="unjustified", comment="It was not.")
    assert live() == [alert]
    alert.refresh_from_db()
    assert "not justified, and what it opened still runs" in alert.evidence["why"]
    later = owe(north, image.digest)
    AdmissionDebt.objects.filter(pk=later.pk).update(fingerprint=first.fingerprint)
    review_debt(north, later.pk, actor=dock.approver, outcome="justified", comment="This time it was.")
    assert live() == []
    later.delete()
    assert [row.fingerprint for row in live()] == [alert.fingerprint]
    report(north, agent, 2)
    assert live() == []


def test_nobody_resolves_it_by_hand_but_somebody_can_work_on_it(north, owner, image):
    owe(north, image.digest)
    (alert,) = live()
    assert str(alerts.why_not_resolve(owner, alert)).startswith("It closes when another person reviews")
    with pytest.raises(IllegalTransition):
        alerts.resolve(alert.pk, actor=owner, reason="Seen.")
    assert alerts.acknowledge(alert.pk, actor=owner).state == "acknowledged"


def test_owners_are_told_again_once_when_the_review_is_overdue(north, owner, image):
    owe(north, image.digest)
    (alert,) = live()
    alerts.acknowledge(alert.pk, actor=owner)
    live()
    assert not Notice.objects.filter(topic="breakglass", subject__startswith="Still open").exists()
    AdmissionDebt.objects.update(due_at=clock.now() - timedelta(minutes=1))
    live()
    live()
    alert.refresh_from_db()
    assert "New Pods are refused" in alert.evidence["why"]
    repeated = Notice.objects.get(topic="breakglass", subject__startswith="Still open")
    assert repeated.items.filter(person=owner).exists()


def test_the_runtime_tab_of_the_image_and_its_index_show_it(dock, north, owner, image):
    both = rows.index("both", image)
    rows.push(dock.repository, both, "2.0")
    owe(north, image.digest)
    hidden = cluster(rows.team("other"), "hidden")
    owe(hidden, image.digest, name="secret-job")
    client = Client()
    client.force_login(owner, backend="allauth.account.auth_backends.AuthenticationBackend")
    for digest in (image.digest, both.digest):
        page = client.get(f"/t/shop/r/shop/api/i/{digest}/?tab=runtime").content.decode()
        assert "INC-7: shop is down" in page
        assert "/clusters/north/#debts" in page
        assert "secret-job" not in page
