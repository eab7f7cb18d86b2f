"""Trusted sources, the check of signatures, and the facts that rules and pages read."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Team, User
from lifecycle.audit.models import AuditEvent
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted, RegistryRefused, StaleVersion
from lifecycle.ingest.services import ingest_manifest, ingest_referrers
from lifecycle.jobs.models import Job
from lifecycle.lineage.models import Derivation
from lifecycle.lineage.services import derive
from lifecycle.policy.types import BaseTrust
from lifecycle.registry.models import Image, Repository, RepositoryImage
from lifecycle.signatures.constants import BUNDLE_V03, PROVENANCE_V1
from lifecycle.trust import services
from lifecycle.trust.models import Attestation, Signature, TrustCheck, TrustedSource
from lifecycle.trust.queries import base_trust, signature_facts, untrusted_count
from lifecycle.trust.types import parse_source
from tests.clients import Caller
from tests.factories import dock, oci
from tests.factories.people import person
from tests.factories.signatures import Sigstore, new_key, statement
from tests.factories.trusting import attach, attach_bundle, attach_simple_signature, key_signer, source
from tests.fakes.registry import InMemoryRegistry, answer_with

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin() -> User:
    return User.objects.create_superuser("admin", password="dock-side-pass")


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An image in shop/api of an in-memory registry, ingested."""
    registry = InMemoryRegistry()
    answer_with(registry, monkeypatch)
    where = dock.repository("shop/api")
    item = oci.image("base", "app")
    oci.push(registry, "shop/api", item, "1")
    ingest_manifest(where.registry_id, "shop/api", item.manifest.digest.text, tag="1", client=registry)
    image = Image.objects.get(digest=item.manifest.digest.text)
    return SimpleNamespace(registry=registry, where=where, item=item, image=image, manifest=item.manifest)


def check(image: Image) -> None:
    reads, problem = services.read_signatures(image, alive=lambda: None)
    services.store_check(image, reads, problem)


def test_problem_is_told_only_to_who_sees_the_repository(
    pushed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = dock.repository("secret/api")
    members = RepositoryImage.objects.get(image=pushed.image)
    members.pk, members.repository = None, hidden
    members.save()
    oci.push(pushed.registry, "secret/api", pushed.item, "1")
    reads = services.read_documents

    def refuse(client: Any, name: str, *args: Any) -> Any:
        if name == "secret/api":
            raise RegistryRefused("The registry refused secret/api.")
        return reads(client, name, *args)

    monkeypatch.setattr(services, "read_documents", refuse)
    check(pushed.image)
    row = TrustCheck.objects.get(image=pushed.image)
    reader = person("reader", dock.team("shop"), "viewer")
    owner = person("owner-of-it", dock.team("secret"), "viewer")
    assert "secret" not in row.problem
    mine = Caller(reader).get(f"images/{pushed.image.digest}/signatures/").json()
    theirs = Caller(owner).get(f"images/{pushed.image.digest}/signatures/").json()
    assert (mine["is_known"], mine["problem"]) == (True, "")  # as if there were no such repository
    assert (theirs["is_known"], theirs["problem"]) == (False, "secret/api: The registry refused secret/api.")
    assert facts(pushed.image, team_id=dock.team("shop").pk).is_known
    assert facts(pushed.image, team_id=dock.team("secret").pk).problem.startswith("The signatures in one of its")


def facts(image: Image, **more: Any) -> Any:
    return signature_facts([image.pk], **more)[image.pk]


def test_a_new_image_is_due_for_a_check_and_unknown_until_then(pushed: SimpleNamespace) -> None:
    assert TrustCheck.objects.get(image=pushed.image).is_due
    assert Job.objects.filter(kind="verify", subject_id=pushed.image.pk).count() == 1
    assert not facts(pushed.image).is_known
    check(pushed.image)
    assert facts(pushed.image).is_known
    assert facts(pushed.image).verified == ()


def test_a_bundle_by_a_trusted_key_counts_and_one_by_another_does_not(pushed: SimpleNamespace, admin: User) -> None:
    key = new_key()
    trusted = source(admin, "releases", "localhost:5000/shop/*", signers=[key_signer(key)])
    digest = pushed.manifest.digest.text
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, statement(digest))
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, new_key(), statement(digest))
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, statement(oci.sha(b"another image")))
    attach(pushed.registry, "shop/api", pushed.manifest, '{"mediaType": 1}', BUNDLE_V03)
    check(pushed.image)
    found = facts(pushed.image)
    assert [(each.source, each.predicate_type) for each in found.verified] == [("releases", "https://example.com/p/v1")]
    assert len(found.refused) >= 2
    states = sorted(Signature.objects.values_list("state", flat=True))
    assert states == ["refused", "unknown", "unknown", "verified"]
    assert AuditEvent.objects.filter(action="image.signatures_changed").count() == 1
    check(pushed.image)  # the same again changes nothing
    assert AuditEvent.objects.filter(action="image.signatures_changed").count() == 1
    assert Attestation.objects.get(signature__state="verified").predicate == {}
    services.retire_source(trusted.pk, actor=admin)
    assert facts(pushed.image).verified == ()


def test_a_removed_key_counts_for_nothing_at_once(pushed: SimpleNamespace, admin: User) -> None:
    key, other = new_key(), new_key()
    trusted = source(admin, "releases", "localhost:5000/shop/*", signers=[key_signer(key), key_signer(other, "old")])
    attach_simple_signature(pushed.registry, "shop/api", pushed.manifest.digest, key)
    check(pushed.image)
    assert len(facts(pushed.image).verified) == 1
    spec = {"name": "releases", "places": ["localhost:5000/shop/*"], "is_site_wide": True}
    services.change_source(
        trusted.pk, parse_source(spec | {"signers": [key_signer(key), key_signer(new_key())]}), actor=admin
    )
    assert len(facts(pushed.image).verified) == 1  # the signer that stays keeps what it has signed
    assert TrustCheck.objects.get(image=pushed.image).is_due  # and the new one may have signed it too
    services.change_source(trusted.pk, parse_source(spec | {"signers": [key_signer(other)]}), actor=admin)
    assert facts(pushed.image).verified == ()
    assert facts(pushed.image).refused == ("Its signer is no longer trusted.",)


def test_keyless_identities_match_by_pattern_with_a_private_root(pushed: SimpleNamespace, admin: User) -> None:
    sigstore = Sigstore()
    signer = {
        "kind": "keyless",
        "issuer": "https://issuer.example",
        "subject": "https://ci.example/shop/**",
        "is_pattern": True,
        "trusted_root": sigstore.trusted_root(),
    }
    source(admin, "ci", "localhost:5000/shop/*", signers=[signer])
    source(admin, "others", "localhost:5000/*", signers=[signer | {"subject": "https://ci.example/other/**"}])
    bundle = json.dumps(sigstore.bundle(pushed.manifest.content))
    attach(pushed.registry, "shop/api", pushed.manifest, bundle, BUNDLE_V03)
    # The artifact's type is of version 0.3, its content of 0.1: the content decides.
    check(pushed.image)
    (fact,) = facts(pushed.image).verified
    assert (fact.source, fact.issuer) == ("ci", "https://issuer.example")
    assert fact.signed_at is not None


def test_provenance_is_read_only_when_it_verifies(pushed: SimpleNamespace, admin: User) -> None:
    key = new_key()
    source(admin, "releases", "localhost:5000/*", signers=[key_signer(key)])
    predicate = {"buildDefinition": {}, "runDetails": {"builder": {"id": "https://builder.example"}}}
    payload = statement(pushed.manifest.digest.text, PROVENANCE_V1, predicate)
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, payload)
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, new_key(), payload)
    check(pushed.image)
    assert sorted(Signature.objects.values_list("state", "builder_id")) == [
        ("unknown", ""),
        ("verified", "https://builder.example"),
    ]


def test_base_is_what_a_verified_provenance_names_and_no_other(pushed: SimpleNamespace, admin: User) -> None:
    key = new_key()
    trusted = source(admin, "releases", "localhost:5000/*", signers=[key_signer(key)])
    base, claimed = dock.image("its base"), dock.image("claimed by a stranger")

    def built_on(image: Image) -> bytes:
        material = {"uri": "pkg:docker/debian@12", "digest": {"sha256": image.digest.removeprefix("sha256:")}}
        predicate = {"buildDefinition": {"resolvedDependencies": [material]}}
        return statement(pushed.manifest.digest.text, PROVENANCE_V1, predicate)

    attach_bundle(pushed.registry, "shop/api", pushed.manifest, key, built_on(base))
    attach_bundle(pushed.registry, "shop/api", pushed.manifest, new_key(), built_on(claimed))
    check(pushed.image)
    derive([pushed.image.pk])
    edge = Derivation.objects.get(derived=pushed.image)
    assert (edge.base, edge.evidence, edge.confidence) == (base, ["provenance"], "medium")

    spec = {"name": "releases", "places": ["localhost:5000/*"], "is_site_wide": True}
    services.change_source(trusted.pk, parse_source(spec | {"signers": [key_signer(new_key())]}), actor=admin)
    check(pushed.image)  # the key is not trusted any more
    derive([pushed.image.pk])
    assert not Derivation.objects.filter(derived=pushed.image).exists()


@pytest.mark.parametrize(("team", "counts"), [("shop", True), ("other", False)])
def test_signers_of_a_team_name_bases_of_its_own_images_only(
    pushed: SimpleNamespace, admin: User, team: str, *, counts: bool
) -> None:
    key, base = new_key(), dock.image("its base")
    where = dock.repository("other/copy")
    RepositoryImage.objects.create(repository=where, image=pushed.image)
    oci.push(pushed.registry, "other/copy", pushed.item, "1")
    source(admin, "keys", "localhost:5000/*", signers=[key_signer(key)], teams=[dock.team(team).slug])
    material = {"uri": "pkg:oci/base", "digest": {"sha256": base.digest.removeprefix("sha256:")}}
    predicate = {"buildDefinition": {"resolvedDependencies": [material]}}
    payload = statement(pushed.manifest.digest.text, PROVENANCE_V1, predicate)
    attach_bundle(pushed.registry, "other/copy", pushed.manifest, key, payload)
    check(pushed.image)
    derive([pushed.image.pk])
    assert Signature.objects.filter(state="verified").exists()
    assert Derivation.objects.filter(derived=pushed.image, base=base).exists() is counts


def test_a_bare_statement_never_counts_as_signed(pushed: SimpleNamespace, admin: User) -> None:
    source(admin, "releases", "localhost:5000/*", signers=[key_signer(new_key())])
    bare = statement(pushed.manifest.digest.text, PROVENANCE_V1).decode()
    attach(pushed.registry, "shop/api", pushed.manifest, bare, "application/vnd.in-toto+json")
    check(pushed.image)
    found = facts(pushed.image)
    assert (found.verified, found.unsigned_attestations) == ((), 1)


def test_a_listed_referrer_with_another_subject_is_ignored(pushed: SimpleNamespace, admin: User) -> None:
    key = new_key()
    source(admin, "releases", "localhost:5000/*", signers=[key_signer(key)])
    other = oci.image("other")
    oci.push(pushed.registry, "shop/api", other)
    held = attach_bundle(pushed.registry, "shop/api", other.manifest, key, statement(pushed.manifest.digest.text))
    from lifecycle.oci.http_client import fallback_tag

    entry = {"mediaType": held.media_type, "digest": held.digest.text, "size": len(held.content)}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    pushed.registry.put_manifest(
        "shop/api", fallback_tag(pushed.manifest.digest), json.dumps(index).encode(), index["mediaType"]
    )
    check(pushed.image)
    assert Signature.objects.count() == 0


def test_a_later_signature_makes_the_image_due_again(pushed: SimpleNamespace) -> None:
    check(pushed.image)
    Job.objects.all().delete()
    attach_simple_signature(pushed.registry, "shop/api", pushed.manifest.digest, new_key())
    tag = f"sha256-{pushed.manifest.digest.encoded}.sig"
    for expected in (1, 1):  # the second reading finds nothing new
        ingest_referrers(pushed.where.registry, pushed.registry, "shop/api", tag)
        assert Job.objects.filter(kind="verify", subject_id=pushed.image.pk).count() == expected
    assert TrustCheck.objects.get(image=pushed.image).is_due


def test_the_sweep_queues_what_is_due_once(pushed: SimpleNamespace) -> None:
    assert services.queue_due_checks() == 0  # its job waits already
    Job.objects.all().delete()
    assert services.queue_due_checks() == 1
    check(pushed.image)
    Job.objects.all().delete()
    assert services.queue_due_checks() == 0


def test_facts_cost_the_same_queries_for_any_number_of_images(pushed: SimpleNamespace, admin: User) -> None:
    source(admin, "releases", "localhost:5000/*", signers=[key_signer(new_key())])
    images = [dock.image(f"image {number}") for number in range(3)]
    for image in images:
        dock.push(pushed.where, image, image.digest[7:15])
        dock.derive(pushed.image, image)
    counts = []
    for number in (1, 3):
        with CaptureQueriesContext(connection) as captured:
            base_trust([image.pk for image in images[:number]])
        counts.append(len(captured))
    assert counts[0] == counts[1]


# Bases


@pytest.fixture
def fleet(admin: User) -> SimpleNamespace:
    """hub/debian, and shop/api and sail/web that stand on it."""
    debian, api, web = dock.image("debian"), dock.image("api"), dock.image("web")
    dock.push(dock.repository("hub/debian"), debian, "13")
    dock.push(dock.repository("shop/api"), api, "1")
    dock.push(dock.repository("sail/web"), web, "1")
    dock.derive(debian, api)
    dock.derive(debian, web)
    shop, sail = Team.objects.get(slug="shop"), Team.objects.get(slug="sail")
    return SimpleNamespace(debian=debian, api=api, web=web, shop=shop, sail=sail)


def status(image: Image, team: Team | None = None) -> BaseTrust:
    return base_trust([image.pk], team_id=team.pk if team else None)[image.pk].status


def test_without_sources_nobody_knows_and_nothing_is_counted(fleet: SimpleNamespace) -> None:
    assert status(fleet.api) == BaseTrust.UNKNOWN
    assert untrusted_count(Repository.objects.all()) is None


def test_a_base_outside_of_every_source_is_untrusted(fleet: SimpleNamespace, admin: User) -> None:
    source(admin, "elsewhere", "docker.io/library/*")
    found = base_trust([fleet.api.pk])[fleet.api.pk]
    assert found.status == BaseTrust.UNTRUSTED
    assert "No trusted source covers localhost:5000/hub/debian." in found.reason
    assert untrusted_count(Repository.objects.all()) == 2
    source(admin, "hub", "localhost:5000/hub/*")
    assert status(fleet.api) == BaseTrust.TRUSTED
    assert status(fleet.debian) == BaseTrust.SOURCE
    assert untrusted_count(Repository.objects.all()) == 0


def test_a_source_of_one_team_counts_for_that_team_only(fleet: SimpleNamespace, admin: User) -> None:
    source(admin, "hub", "localhost:5000/hub/*", teams=["shop"])
    assert status(fleet.api, fleet.shop) == BaseTrust.TRUSTED
    assert status(fleet.web, fleet.sail) == BaseTrust.UNKNOWN  # no source is set up for it
    source(admin, "elsewhere", "docker.io/library/*")
    assert status(fleet.web, fleet.sail) == BaseTrust.UNTRUSTED
    assert untrusted_count(Repository.objects.all()) == 1


def test_a_source_with_signers_trusts_signed_bases_only(fleet: SimpleNamespace, admin: User) -> None:
    trusted = source(admin, "hub", "localhost:5000/hub/*", signers=[key_signer(new_key())])
    found = base_trust([fleet.api.pk])[fleet.api.pk]
    assert (found.status, found.bases[0].reason) == (
        BaseTrust.UNTRUSTED,
        "It is in a place of hub, but no signer of hub has signed it.",
    )
    index = dock.index("debian index", fleet.debian)
    row = Signature.objects.create(
        image=index, repository=Repository.objects.get(name="hub/debian"), manifest_digest=oci.sha(b"m"),
        object_digest=oci.sha(b"o"), format="bundle", state="verified", checked_at=clock.now(),
    )  # fmt: skip
    row.signers.set(trusted.signers.all())
    assert status(fleet.api) == BaseTrust.TRUSTED  # the index names the platform by its digest
    assert untrusted_count(Repository.objects.all()) == 0
    trusted.signers.all().delete()
    assert status(fleet.api) == BaseTrust.UNTRUSTED  # without signers it trusts nothing
    assert untrusted_count(Repository.objects.all()) == 2


def test_a_source_counts_from_its_time_on(fleet: SimpleNamespace, admin: User) -> None:
    source(admin, "elsewhere", "docker.io/library/*")
    source(admin, "hub", "localhost:5000/hub/*", valid_from=(clock.now() + timedelta(hours=1)).isoformat())
    assert status(fleet.api) == BaseTrust.UNTRUSTED
    TrustedSource.objects.filter(name="hub").update(valid_from=clock.now() - timedelta(hours=1))
    assert status(fleet.api) == BaseTrust.TRUSTED


def test_a_declared_base_that_was_never_seen_is_unknown(fleet: SimpleNamespace, admin: User) -> None:
    source(admin, "hub", "localhost:5000/hub/*")
    image = dock.image("declared", base_name="docker.io/library/debian:13")
    RepositoryImage.objects.create(repository=Repository.objects.get(name="shop/api"), image=image)
    found = base_trust([image.pk])[image.pk]
    assert (found.status, found.reason) == (
        BaseTrust.UNKNOWN,
        "The declared base docker.io/library/debian:13 was never seen.",
    )


# Actions


def test_who_may_manage_sources(fleet: SimpleNamespace, admin: User) -> None:
    guard = dock.user("guard", "security", of=fleet.shop)
    viewer = dock.user("viewer", "viewer", of=fleet.shop)
    mine = source(guard, "mine", "docker.io/library/*", teams=["shop"])
    for actor, teams in ((guard, None), (viewer, ["shop"]), (guard, ["shop", "sail"])):
        with pytest.raises((NotPermitted, NotFound)):
            source(actor, "other", "docker.io/library/*", **({"teams": teams} if teams else {}))
    site = source(admin, "site", "docker.io/library/*")
    with pytest.raises(NotPermitted):
        services.retire_source(site.pk, actor=guard)
    with pytest.raises(NotFound):
        services.retire_source(mine.pk, actor=dock.user("stranger", "owner", of=fleet.sail))
    with pytest.raises(NotPermitted):
        services.retire_source(mine.pk, actor=viewer)
    services.retire_source(mine.pk, actor=guard, reason="no longer used")
    actions = list(
        AuditEvent.objects.filter(action__startswith="source.").order_by("id").values_list("action", "reason")
    )
    assert actions == [("source.created", ""), ("source.created", ""), ("source.retired", "no longer used")]


def test_two_people_do_not_overwrite_each_other(fleet: SimpleNamespace, admin: User) -> None:
    made = source(admin, "hub", "localhost:5000/hub/*")
    spec = parse_source({"name": "hub", "places": ["quay.io/x/*"], "is_site_wide": True, "needs_signature": False})
    services.change_source(made.pk, spec, actor=admin, revision=1)
    with pytest.raises(StaleVersion, match="meanwhile"):
        services.change_source(made.pk, spec, actor=admin, revision=1)
    with pytest.raises(StaleVersion, match="meanwhile"):
        services.retire_source(made.pk, actor=admin, revision=1)
    with pytest.raises(Conflict, match="already"):
        services.create_source(spec, actor=admin)


def test_a_file_of_sources_is_taken_as_a_whole(fleet: SimpleNamespace, admin: User) -> None:
    one = {"name": "one", "places": ["quay.io/x/*"], "is_site_wide": True, "needs_signature": False}
    specs = [parse_source(one), parse_source(one | {"name": "two"})]
    assert services.put_sources(specs, actor=admin) == {"one": "created", "two": "created"}
    changed = [parse_source(one | {"description": "new"}), parse_source(one | {"name": "two"})]
    assert services.put_sources(changed, actor=admin) == {"one": "changed", "two": "unchanged"}
    with pytest.raises(Malformed):
        services.put_sources([*specs, specs[0]], actor=admin)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "A b"}, "name"),
        ({"places": []}, "places"),
        ({"places": ["debian"]}, "places"),
        ({"places": ["docker.io/a b"]}, "places"),
        ({"teams": ["shop"]}, "either"),
        ({"is_site_wide": False}, "either"),
        ({"needs_signature": True}, "signers"),
        ({"extra": 1}, "extra"),
        ({"valid_from": "tomorrow"}, "valid_from"),
        ({"valid_from": "2026-01-01T00:00:00"}, "time zone"),
        ({"signers": [{"kind": "key", "pem": "x"}]}, "PEM"),
        ({"signers": [{"kind": "keyless", "issuer": "https://i.example"}]}, "subject"),
        ({"signers": [{"kind": "keyless", "issuer": "i", "subject": "**", "is_pattern": True}]}, "begin with a host"),
        ({"signers": [{"kind": "keyless", "issuer": "i", "subject": "https://**", "is_pattern": True}]}, "begin with"),
        ({"signers": [{"kind": "key", "pem": "x", "issuer": "i"}]}, "no field"),
        ({"signers": [{"kind": "other"}]}, "kind"),
    ],
)
def test_sources_that_are_refused_before_they_are_stored(change: dict[str, Any], reason: str) -> None:
    good = {"name": "one", "places": ["quay.io/x/*"], "is_site_wide": True, "needs_signature": False}
    parse_source(good)
    with pytest.raises(Malformed, match=reason):
        parse_source(good | change)
