"""Helm charts and other artifacts are promoted like images; rules about platforms and packages do not apply to them."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from accounts.queries import system_user
from lifecycle.authority.services import create_environment
from lifecycle.core.errors import NotFound
from lifecycle.environments.models import Slot
from lifecycle.ingest.services import ingest_manifest, ingest_referrers
from lifecycle.jobs import running
from lifecycle.jobs.models import Job
from lifecycle.promotion import services
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine.services import quarantine
from lifecycle.quarantine.types import Quarantined
from lifecycle.registry.models import Image
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.trust.queries import signature_facts
from tests.factories import dock, oci
from tests.factories.signatures import new_key
from tests.factories.trusting import attach_simple_signature, key_signer, source
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db


def test_chart_is_judged_signed_for_copied_and_stopped_by_a_quarantine(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    registry = InMemoryRegistry()
    answer_with(registry, monkeypatch)
    team, key = dock.team("shop"), new_key()
    dev = create_environment(team, actor=system_user(), slug="dev", name="Dev", prefix="dev")
    source(User.objects.create_superuser("root"), "charts", "quay.io/shop/*", signers=[key_signer(key)])
    owner, where = dock.user("mia", "owner", of=team), dock.repository("shop/chart")
    item = oci.chart("the shop")
    oci.push(registry, "shop/chart", item, "1.2.0")
    managed = ensure_managed_registry()
    chart = ingest_manifest(managed.pk, "shop/chart", item.manifest.digest.text, tag="1.2.0")
    assert (chart.kind, chart.noun, chart.is_content) == (Image.Kind.ARTIFACT, "Helm chart", True)

    attach_simple_signature(registry, "shop/chart", item.manifest.digest, key)
    ingest_referrers(managed, registry, "shop/chart", f"{item.manifest.digest.text.replace(':', '-')}.sig")
    running.run(Job.objects.get(kind="verify", subject_id=chart.pk).pk)
    assert [fact.source for fact in signature_facts([chart.pk], team_id=team.pk)[chart.pk].verified] == ["charts"]
    signature = Image.objects.exclude(pk=chart.pk).get()
    with pytest.raises(NotFound, match="promoted on its own"):  # a signature goes with what it signs
        services.request_promotion(where, signature.digest, dev, actor=owner, reason="no")

    client.force_login(owner)
    listed = client.get(reverse("lifecycle:repository", args=["shop", "shop/chart"])).content.decode()
    form = client.get(reverse("lifecycle:promotion-new"), {"repository": where.pk, "digest": chart.digest})
    assert "Promote<span" in listed
    assert reverse("lifecycle:image", args=["shop", "shop/chart", chart.digest]) not in listed
    assert form.status_code == 200
    assert "Helm chart" in form.content.decode()

    request = services.request_promotion(where, chart.digest, dev, actor=owner, reason="new chart")
    said = {item["name"]: item["status"] for item in request.evaluations.get().requirements}
    assert said["packages_known"] == said["platforms_complete"] == "not_applicable"
    assert request.state == PromotionRequest.State.READY
    page = client.get(reverse("lifecycle:promotion", args=[request.pk])).content.decode()
    assert "Helm chart: only images have platforms." in page
    services.execute(request.pk, actor=owner)
    running.run(Job.objects.get(kind="promote").pk)
    assert Slot.objects.get(repository=where, environment=dev).image == chart
    held = registry.resolve("dev/shop/chart", "current")
    assert held is not None
    assert held.digest == item.manifest.digest
    board = client.get(reverse("lifecycle:environments")).content.decode()
    assert '<span class="mono">1.2.0</span>' in board

    other = oci.chart("the next shop")
    oci.push(registry, "shop/chart", other, "1.3.0")
    bad = ingest_manifest(managed.pk, "shop/chart", other.manifest.digest.text, tag="1.3.0")
    quarantine(bad.digest, actor=owner, reason="leaks a password")
    with pytest.raises(Quarantined, match="leaks a password"):
        services.request_promotion(where, bad.digest, dev, actor=owner, reason="no")
