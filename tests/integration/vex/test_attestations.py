"""VEX attestations of images: they count while a trusted signer has signed them, and only for their image."""

from __future__ import annotations

import json

import pytest

from accounts.models import User
from lifecycle.audit.models import AuditEvent
from lifecycle.core.errors import NotPermitted
from lifecycle.evidence.risk import refresh_risk
from lifecycle.ingest.services import ingest_manifest
from lifecycle.registry.models import Image
from lifecycle.trust import services as trust
from lifecycle.trust.types import parse_source
from lifecycle.vex import documents
from lifecycle.vex.models import VexDocument, VexEffect
from lifecycle.vex.queries import documents_visible_to
from tests.clients import browser
from tests.factories import dock, oci
from tests.factories.people import person
from tests.factories.signatures import new_key, statement
from tests.factories.trusting import attach_bundle, key_signer, source
from tests.factories.vexing import openvex, said
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db
OPENVEX = "https://openvex.dev/ns/v0.2.0"


@pytest.fixture
def pushed(monkeypatch):
    """Return two images of shop in an in-memory registry, with the same findings, and a key."""
    registry = InMemoryRegistry()
    answer_with(registry, monkeypatch)
    where = dock.repository("shop/api")
    openssl = dock.package("libssl3", "3.0.11-1", source="openssl")
    dock.advisory("CVE-2026-1", "high", openssl)
    dock.advisory("CVE-2026-2", "high", openssl)
    images = []
    for name in ("app", "other"):
        item = oci.image("base", name)
        oci.push(registry, "shop/api", item, name)
        ingest_manifest(where.registry_id, "shop/api", item.manifest.digest.text, tag=name, client=registry)
        image = Image.objects.get(digest=item.manifest.digest.text)
        dock.carry(image, 0, openssl)
        images.append(image)
    refresh_risk([image.pk for image in images])
    app = oci.image("base", "app").manifest
    admin = User.objects.create_superuser("admin", password="dock-side-pass")
    return {"registry": registry, "manifest": app, "images": images, "key": new_key(), "admin": admin, "where": where}


def check(image):
    reads, problem = trust.read_signatures(image, alive=lambda: None)
    trust.store_check(image, reads, problem)


def suppressed():
    return sorted(VexEffect.objects.filter(suppresses=True).values_list("image__digest", "vulnerability"))


def attest(pushed, key, *statements, name="https://shop.example/1"):
    predicate = json.loads(openvex(*statements, name=name))
    payload = statement(pushed["manifest"].digest.text, OPENVEX, predicate)
    return attach_bundle(pushed["registry"], "shop/api", pushed["manifest"], key, payload)


def test_signed_attestation_counts_for_its_image_while_its_signer_is_trusted(pushed):
    app, other = pushed["images"]
    key, admin = pushed["key"], pushed["admin"]
    # Without a product it is about its subject; what it says of another image does not count.
    bare = said("CVE-2026-1") | {"products": []}
    attest(
        pushed, key, bare, said("CVE-2026-2", f"pkg:oci/x@{other.digest}".replace(":", "%3A").replace("pkg%3A", "pkg:"))
    )
    check(app)
    document = VexDocument.objects.get()
    assert (document.state, document.image, document.team) == ("advice", app, pushed["where"].team)
    assert (suppressed(), app.vex_effects.count()) == ([], 0)
    trusted = source(admin, "shop", "localhost:5000/shop/*", signers=[key_signer(key)])
    check(app)
    document.refresh_from_db()
    assert (document.state, document.why_advice) == ("applied", "")
    assert suppressed() == [(app.digest, "CVE-2026-1")]
    app.refresh_from_db()
    assert app.high_count == 1
    check(app)  # the same again changes nothing
    assert VexDocument.objects.count() == 1
    told = AuditEvent.objects.filter(action="vex.document_found").count()
    with pytest.raises(NotPermitted, match="Nobody accepts an attestation"):
        documents.accept(document.pk, actor=person("approver", pushed["where"].team, "approver"))
    # A source for another team trusts nothing here, and a removed signer takes its document along.
    spec = {"name": "shop", "places": ["localhost:5000/shop/*"], "is_site_wide": False, "teams": ["elsewhere"]}
    dock.team("elsewhere")
    trust.change_source(trusted.pk, parse_source(spec | {"signers": [key_signer(key)]}), actor=admin)
    assert suppressed() == []
    trust.change_source(trusted.pk, parse_source(spec | {"teams": ["shop"], "signers": [key_signer(key)]}), actor=admin)
    assert suppressed() == [(app.digest, "CVE-2026-1")]
    trust.change_source(
        trusted.pk, parse_source(spec | {"teams": ["shop"], "signers": [key_signer(new_key())]}), actor=admin
    )
    document.refresh_from_db()
    assert (suppressed(), document.state, document.why_advice) == ([], "advice", "Its signer is no longer trusted.")
    assert AuditEvent.objects.filter(action="vex.document_found").count() == told + 1
    reader = person("reader", pushed["where"].team, "viewer")
    assert list(documents_visible_to(reader)) == [document]
    assert not documents_visible_to(person("stranger", dock.team("elsewhere"), "viewer")).exists()
    page = browser(reader).get(f"/vex/documents/{document.pk}/").content.decode()
    assert "Its signer is no longer trusted." in page
    assert app.digest[:19] in page


def test_retired_source_and_removed_attestation_end_what_counted(pushed):
    app, _ = pushed["images"]
    trusted = source(pushed["admin"], "shop", "localhost:5000/shop/*", signers=[key_signer(pushed["key"])])
    attest(
        pushed, pushed["key"], said("CVE-2026-1", f"pkg:oci/api@sha256%3A{app.digest[7:]}", "pkg:deb/debian/libssl3")
    )
    check(app)
    assert suppressed() == [(app.digest, "CVE-2026-1")]
    trust.store_check(app, [], [])
    assert (suppressed(), VexDocument.objects.get().state) == ([], "withdrawn")
    check(app)
    assert suppressed() == [(app.digest, "CVE-2026-1")]
    trust.retire_source(trusted.pk, actor=pushed["admin"])
    assert suppressed() == []


def test_what_a_promotion_attested_is_not_read_back(pushed, settings):
    """It has what was decided here: to believe it would keep a decision alive after its end."""
    app, _ = pushed["images"]
    source(pushed["admin"], "shop", "localhost:5000/shop/*", signers=[key_signer(pushed["key"])])
    bare = said("CVE-2026-1") | {"products": []}
    attest(pushed, pushed["key"], bare, name=f"{settings.PUBLIC_URL}/vex/{app.digest}/{'a' * 64}")
    check(app)
    assert not VexDocument.objects.exists()
    attest(pushed, pushed["key"], bare)
    check(app)
    assert suppressed() == [(app.digest, "CVE-2026-1")]
