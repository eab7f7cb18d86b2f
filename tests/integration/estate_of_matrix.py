"""The rows that every call of the authorization matrix is about, one of each kind, and the address of a call."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final

from accounts import tokens
from accounts.models import ApiToken, Robot, Role, Team
from lifecycle.admission.models import AdmissionDebt, AdmissionDecision
from lifecycle.advisories.models import Feed, PrivateAdvisory
from lifecycle.alerts.models import Alert
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import (
    AccessRequest,
    BrowserSession,
    Passkey,
    RecoveryCode,
    RoleGrant,
    TotpSecret,
)
from lifecycle.clusters.models import Cluster, ClusterSecret
from lifecycle.clusters.queries import hash_of
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Hold, PromotionWindow
from lifecycle.inventory.models import Reporter, RuntimeReport
from lifecycle.jobs.models import Job
from lifecycle.keyless.models import TrustRule
from lifecycle.notices.models import Channel, InboxItem, Message, Mute
from lifecycle.pentests.models import PentestFinding, PentestRun
from lifecycle.policies.models import ExternalCheck, Waiver
from lifecycle.policies.types import Scope
from lifecycle.promotion import release_sets
from lifecycle.promotion.models import ReleaseSet
from lifecycle.promotion.release_sets import Wanted
from lifecycle.quarantine.models import Quarantine
from lifecycle.rebuild.models import BuilderPermit, RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import Metadata, Registry, Repository
from lifecycle.remedies.models import Remedy
from lifecycle.retention.models import RetentionPlan
from lifecycle.sbom.models import PackageList, Sbom
from lifecycle.sealed_log.models import Anchor
from lifecycle.trust.models import SigningKey, TrustedSource
from lifecycle.vex.models import VexDocument, VexFeed, VexStatement
from tests.factories import dock as rows
from tests.factories.access import access_ids, make_access
from tests.factories.pentests import pentest_finding
from tests.factories.policies import rule
from tests.factories.policies import save as save_rules
from tests.factories.policies import waiver as ask_waiver
from tests.factories.retention import deleted_plan
from tests.factories.vexing import bring_document, vex_feed
from tests.factories.vexing import decision as ask_decision
from tests.integration.matrix_of_calls import (
    OSV_RECORD,
)

SECRET: Final = "gdc_ale_of-these-tests"


def make_wave(dock):
    """Create a planned wave over the dock's repository, an image in it, a watch, a recipe, an image on an old base."""
    by = {"repository": dock.repository}
    old, web = rows.image("old base"), rows.image("web")
    rows.push(dock.repository, old, "1.0")
    rows.push(dock.repository, dock.image, "1.0")
    above = rows.repository("shop/web", dock.team)
    rows.push(above, web, "latest")
    rows.derive(old, web)
    Recipe.objects.create(repository=above, revision=1, containerfile="FROM scratch", author=dock.owner)
    BuilderPermit.objects.create(repository=above, turned_on_by=dock.owner)
    made = RebuildWave.objects.create(**by, new_base=dock.image, planned_by=dock.owner)
    recipe = Recipe.objects.create(**by, revision=1, containerfile="FROM scratch", author=dock.owner)
    RebuildJob.objects.create(**by, wave=made, level=1, old_image=dock.image, recipe=recipe, tag="latest")
    UpstreamWatch.objects.create(**by, tag="latest", created_by=dock.owner)
    return made


def make_estate(dock):
    """Create a robot with a token, somebody's token, a composed role, and a package with an advisory."""
    robot = make_access(dock)
    TrustRule.objects.create(
        robot=robot, name="ci", issuer="https://gitlab.com", audience="x", claims={"project_path": "acme/shop"},
        made_by=dock.owner,
    )  # fmt: skip
    tokens.create_token(dock.owner, kind="pat", name="laptop")
    Passkey.objects.create(user=dock.owner, name="laptop", credential_id=b"id", public_key=b"key")
    TotpSecret.objects.create(user=dock.owner)
    RecoveryCode.objects.create(user=dock.owner, secret_sha256=hashlib.sha256(b"RECOVERYCODE").digest())
    now = clock.now()
    times = {"created_at": now, "last_seen_at": now, "expire_date": now + timedelta(days=1)}
    BrowserSession.objects.create(session_key="k", user=dock.owner, **times)
    Team.objects.create(slug="empty", name="Empty")
    Metadata.objects.create(repository=dock.repository, key="owner", value="kim")
    Role.objects.create(slug="crew", name="Crew", verbs=["image.view"])
    AccessRequest.objects.create(
        team=dock.team, requester=dock.requester, role=Role.objects.get(slug="deployer"), days=7, reason="on call"
    )
    package = rows.package("openssl", "3.0")
    rows.carry(dock.image, 0, package)
    rows.advisory("CVE-2026-1", "high", package)
    save_rules(Scope(dock.team), rule("r"))
    ask_waiver(dock.team, "r", by=dock.owner, repository=dock.repository)
    ask_decision(dock.repository, by=dock.owner)
    bring_document(dock.team, by=dock.owner)
    vex_feed(dock.team, by=dock.owner)
    vex_feed(dock.team, by=dock.owner, name="trusted", trusted_by=dock.approver)
    bad, on_bad = rows.image("bad"), rows.image("on bad")
    rows.derive(bad, on_bad)
    rows.push(dock.repository, bad, "bad")
    rows.push(dock.repository, on_bad, "on-bad")
    pentest_finding(dock.repository, dock.image, by=dock.owner)
    deleted_plan(dock.team, bad, dock.repository, by=dock.owner)
    Quarantine.objects.create(image=bad, team=dock.team, reason="bad", created_by=dock.approver)
    Remedy.objects.create(
        repository=dock.repository,
        image=dock.image,
        key="0" * 16,
        subject="s",
        kind="none",
        package_name="openssl",
        high=1,
    )
    Alert.objects.create(
        kind="finding.new", fingerprint="0" * 64, team=dock.team, vulnerability="CVE-2026-1", first_at=clock.now(),
        last_at=clock.now(), repository_ids=[dock.repository.pk], image_counts=[1], images=1,
    )  # fmt: skip
    for name in ("first", "second"):
        Anchor.objects.create(name=name, kind="mail", target="audit@example.com")
    north = Cluster.objects.create(slug="north", team=dock.team, created_by=dock.owner)
    AdmissionDecision.objects.create(cluster=north, key="key-1", snapshot_number=1, at=clock.now())
    AdmissionDebt.objects.create(
        cluster=north, digests=["sha256:a"], fingerprint="0" * 64, decision_key="key-1", reason="INC-7",
        opened_at=clock.now(), last_at=clock.now(), due_at=clock.now(),
    )  # fmt: skip
    ClusterSecret.objects.create(cluster=north, kind="alerts", sha256=hash_of(SECRET), created_by=dock.owner)
    host = Reporter.objects.create(
        cluster=north, name="host", boot="b", sequence=1, first_at=clock.now(), seen_at=clock.now()
    )
    RuntimeReport.objects.create(
        reporter=host, cluster=north, report_id="r-1", kind="full", boot="b", sequence=1, observed_at=clock.now(),
        received_at=clock.now(), applied_at=clock.now(),
    )  # fmt: skip
    PrivateAdvisory.objects.create(
        osv_id="ACME-2026-1", document=OSV_RECORD["document"] | {"id": "ACME-2026-1"}, state="requested",
        author=dock.owner,
    )  # fmt: skip
    sbom = Sbom.objects.create(image=dock.image, format="CycloneDX 1.5 JSON", tool="x", digest=rows.sha("bom"))
    PackageList.objects.create(
        sbom=sbom, image=dock.image, kind="sent", package_count=1, dropped_count=0, team_ids=[dock.team.pk],
        sent_by=dock.owner, kept_at=clock.now(),
    )  # fmt: skip
    Job.objects.create(kind="scan", subject_id=1, actor=dock.owner, state="failed", finished_at=clock.now())
    SigningKey.objects.create(name="release", public_key="PEM", fingerprint=rows.sha("key"), created_by=dock.owner)
    source = TrustedSource.objects.create(
        name="hub", places=["quay.io/*"], needs_signature=False, created_by=dock.owner
    )
    source.teams.set([dock.team])
    Environment.objects.create(team=dock.team, slug="spare", name="Spare", prefix="spare", position=9)
    allowed = {"name": "always", "kind": "allow", "starts_at": "2026-01-01T00:00:00", "time_zone": "UTC"}
    PromotionWindow.objects.create(
        team=dock.team, duration_s=86_400, rule="FREQ=DAILY", created_by=dock.owner, **allowed
    )  # fmt: skip
    Registry.objects.create(name="other", endpoint="https://localhost:1", is_added=True)
    Feed.objects.create(name="other", location="https://localhost:1/osv")
    channel = Channel.objects.create(
        team=dock.team, name="ops", kind="webhook", topics=["promotion.failed"], created_by=dock.owner
    )
    ExternalCheck.objects.create(team=dock.team, name="scanner", host="scanner.example.com", created_by=dock.owner)
    Message.objects.create(channel=channel, key="k", state="sent", due_at=clock.now())
    Mute.objects.create(person=dock.approver, scope="all", until=clock.now() + timedelta(days=3))
    Hold.objects.create(team=dock.team, environment=dock.dev, scope="auto", reason="test", owner=dock.owner)
    wanted = []
    for name in ("one", "two"):
        member, where = (
            rows.image(name, scanned_at=clock.now(), package_count=1),
            rows.repository(f"shop/{name}", dock.team),
        )
        rows.push(where, member, "1.0")
        wanted.append(Wanted(where, tag="1.0"))
    release_sets.request_set(wanted, dock.dev, actor=dock.requester, reason="release")


def address(pattern, dock, request_):
    values = {
        "grant": RoleGrant.objects.filter(user=dock.approver).values_list("pk", flat=True).first(),
        **access_ids(),
        "robot": Robot.objects.values_list("pk", flat=True).first(),
        "trust_rule": TrustRule.objects.values_list("pk", flat=True).first(),
        "robot_token": ApiToken.objects.filter(kind="rob").values_list("pk", flat=True).first(),
        "passkey": Passkey.objects.filter(user=dock.owner).values_list("pk", flat=True).first(),
        "factored_person": dock.owner.pk,
        "session": BrowserSession.objects.filter(user=dock.owner).values_list("public_id", flat=True).first(),
        "token": ApiToken.objects.filter(kind="pat").values_list("pk", flat=True).first(),
        "role": "crew",
        "person": dock.approver.pk,
        "check": ExternalCheck.objects.values_list("pk", flat=True).first(),
        "channel": Channel.objects.values_list("pk", flat=True).first(),
        "feed": Feed.objects.filter(name="other").values_list("pk", flat=True).first(),
        "registry": Registry.objects.filter(is_added=True).values_list("pk", flat=True).first(),
        "message": Message.objects.filter(state="sent").values_list("pk", flat=True).first(),
        "mute": Mute.objects.filter(person=dock.approver).values_list("pk", flat=True).first(),
        "notice": InboxItem.objects.filter(person=dock.approver).values_list("pk", flat=True).first(),
        "digest": dock.image.digest,
        "repository": dock.repository.pk,
        "repository_name": dock.repository.name,
        "free_repository": Repository.objects.filter(name="shop/free").values_list("pk", flat=True).first(),
        "free_name": "shop/free",
        "access_request": AccessRequest.objects.values_list("pk", flat=True).first(),
        "environment": dock.dev.pk,
        "unused_environment": Environment.objects.filter(slug="spare").values_list("pk", flat=True).first(),
        "window": PromotionWindow.objects.values_list("pk", flat=True).first(),
        "hold": Hold.objects.values_list("pk", flat=True).first(),
        "promotion": request_.pk,
        "set": ReleaseSet.objects.values_list("pk", flat=True).first(),
        "thread": 1,
        "wave": RebuildWave.objects.values_list("pk", flat=True).first(),
        "wave_job": RebuildJob.objects.values_list("pk", flat=True).first(),
        "scope": "team:shop",
        "fix": "0" * 16,
        "alert": Alert.objects.values_list("pk", flat=True).first(),
        "cluster": "north",
        "decision": "key-1",
        "debt": AdmissionDebt.objects.values_list("pk", flat=True).first(),
        "secret": SECRET,
        "log_file": "checkpoint",
        "anchor": Anchor.objects.values_list("pk", flat=True).first(),
        "report": "r-1",
        "pentest": PentestFinding.objects.values_list("pk", flat=True).first(),
        "pentest_run": PentestRun.objects.values_list("pk", flat=True).first(),
        "retention_plan": RetentionPlan.objects.values_list("pk", flat=True).first(),
        "quarantine": Quarantine.objects.values_list("pk", flat=True).first(),
        "vex_statement": VexStatement.objects.filter(document=None).values_list("pk", flat=True).first(),
        "private_advisory": PrivateAdvisory.objects.values_list("pk", flat=True).first(),
        "vex_feed": VexFeed.objects.values_list("pk", flat=True).first(),
        "trusted_vex_feed": VexFeed.objects.filter(name="trusted").values_list("pk", flat=True).first(),
        "vex_document": VexDocument.objects.values_list("pk", flat=True).first(),
        "waiver": Waiver.objects.values_list("pk", flat=True).first(),
        "watch": UpstreamWatch.objects.values_list("pk", flat=True).first(),
        "signing_key": "release",
        "sbom": PackageList.objects.values_list("pk", flat=True).first(),
        "trusted_source": TrustedSource.objects.values_list("pk", flat=True).first(),
        "event": AuditEvent.objects.order_by("pk").values_list("pk", flat=True).first(),
        "job": Job.objects.filter(kind="scan", subject_id=1).values_list("pk", flat=True).first(),
        "team": dock.team.slug,
        "advisory": "CVE-2026-1",
        "export": "findings.csv",
        "tag": "1.0",
        "empty_team": "empty",
        "package_type": "deb",
        "package_name": "openssl",
    }
    return "/" + pattern.replace("<str:name>", "managed").format(**values)
