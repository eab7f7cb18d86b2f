"""The rows that `test_query_counts` counts the queries of lists with: one more of each kind with each number."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from accounts.models import Identity, Role, Team, User
from accounts.queries import system_user
from lifecycle.advisories.models import Feed, PrivateAdvisory
from lifecycle.alerts.models import Alert, SeenFinding
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.authority import services
from lifecycle.authority.models import AccessRequest
from lifecycle.authority.services.environments import create_environment
from lifecycle.clusters.models import Cluster, ClusterSecret, NamespaceBinding
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Hold, PromotionWindow, Slot
from lifecycle.inventory.models import Reporter, RunningImage
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.keyless import services as keyless
from lifecycle.notices.models import Channel, InboxItem, Message, Mute, Notice
from lifecycle.policies.models import ExternalCheck
from lifecycle.policies.types import Scope
from lifecycle.promotion.models import PromotionRequest, ReleaseSet, Vote
from lifecycle.quarantine.models import Quarantine, QuarantineExemption
from lifecycle.rebuild.models import RebuildJob, RebuildWave, Recipe, UpstreamWatch
from lifecycle.registry.models import IndexEntry, Metadata, Registry, Repository
from lifecycle.remedies.models import FixComment, Remedy, TeamFix
from lifecycle.retention.models import RetentionEntry, RetentionPlan
from lifecycle.sbom.models import PackageList, Sbom
from lifecycle.sso.models import ClaimRule, IdentityProvider
from lifecycle.trends.models import TrendFact
from lifecycle.trust.models import Signature, SigningKey, TrustedSigner, TrustedSource
from tests.factories import dock
from tests.factories.pentests import pentest_finding
from tests.factories.policies import rule
from tests.factories.policies import save as save_rules
from tests.factories.policies import waiver as ask_waiver
from tests.factories.retention import deleted_plan
from tests.factories.vexing import bring_document, vex_feed
from tests.factories.vexing import decision as ask_decision


@dataclass(frozen=True)
class World:
    """What the rows of all lists hang on."""

    team: Team
    reader: User  # owns every team
    asker: User
    admin: User
    environments: list[Environment]


def make_world() -> World:
    team = dock.team("shop")
    slugs = ("dev", "staging", "live")
    return World(
        team,
        dock.user("reader", "owner", of=team),
        dock.user("asker", "owner", of=team),
        User.objects.create(username="admin", is_superuser=True),
        [create_environment(team, actor=system_user(), slug=slug, name=slug, prefix=slug) for slug in slugs],
    )


def add_rows(world: World, number: int) -> None:
    """Add one row to every list."""
    add_images(world, number)
    add_promotions(world, number)
    add_rebuilds(world, number)
    add_administration(world, number)


def add_images(world: World, number: int) -> None:
    """Add a repository and its images; packages, findings, tags and derived images of the first."""
    first = dock.repository("shop/app-0")
    where = dock.repository(f"shop/app-{number}")
    base, derived = dock.image(f"base {number}", layers=1), dock.image(f"derived {number}", layers=2)
    dock.push(where, base, "1.0", world.asker)
    dock.push(where, derived, "2.0", world.asker)
    dock.push(first, derived, f"more-{number}", world.asker)
    dock.derive(base, derived)
    subject, other = dock.sha("base 0"), dock.sha("derived 0")
    images = {image.digest: image for image in (dock.Image.objects.filter(digest__in=[subject, other]))}
    dock.push(first, images[subject], f"base-{number}", world.asker)
    if number:
        dock.derive(images[subject], derived)
    Metadata.objects.create(repository=first, key=f"key-{number}", value="x", changed_by=world.asker)
    common = dock.package("common", "1.0")
    dock.carry(derived, 0, common)
    if not number:
        dock.advisory("CVE-common", "high", common, fixed="1.1")
    for image, packages in ((images[subject], "package"), (images[other], "library")):
        package = dock.package(f"{packages}-{number}", "1.0")
        dock.carry(image, 0, package)
        dock.advisory(f"CVE-{packages}-{number}", "high", package, fixed="1.1")
    both = dock.Image.objects.filter(digest=dock.sha("both")).first() or dock.index("both")
    dock.push(first, both, "both", world.asker)
    IndexEntry.objects.create(index=both, child=derived, position=number, platform=f"linux/{number}")
    bad = dock.image(f"bad {number}", layers=1)
    dock.push(where, bad, "bad", world.asker)
    if number:
        dock.derive(dock.Image.objects.get(digest=dock.sha("bad 0")), bad)
    Quarantine.objects.create(image=bad, team=world.team, reason="bad", created_by=world.asker)
    sbom = Sbom.objects.create(
        image=images[subject], format="CycloneDX 1.5 JSON", tool="x", digest=dock.sha(f"bom {number}")
    )
    PackageList.objects.create(
        sbom=sbom, image=images[subject], kind="sent", package_count=1, dropped_count=0, team_ids=[world.team.pk],
        sent_by=world.asker, kept_at=clock.now(), repository=first, object_digest=dock.sha(f"object {number}"),
    )  # fmt: skip
    pentest_finding(first, images[subject], by=world.asker, rule=f"rule-{number}")
    plan = deleted_plan(world.team, derived, where, by=world.asker)
    first_plan = RetentionPlan.objects.earliest("pk")
    if plan != first_plan:
        RetentionEntry.objects.filter(plan=plan).update(plan=first_plan)
    QuarantineExemption.objects.create(
        quarantine=Quarantine.objects.earliest("pk"), image=derived, reason="fine", created_by=world.reader
    )
    Alert.objects.create(
        kind="finding.new", fingerprint=f"{number:064}", team=world.team, vulnerability=f"CVE-package-{number}",
        severity="high", first_at=clock.now(), last_at=clock.now(), repository_ids=[where.pk], image_counts=[1],
        images=1, acted_by=world.asker,
    )  # fmt: skip
    shown = Alert.objects.earliest("pk")
    shown.repository_ids, shown.image_counts = [*shown.repository_ids, where.pk], [*shown.image_counts, 1]
    shown.save()
    SeenFinding.objects.create(
        package=dock.package(f"package-{number}", "1.0"), vulnerability="CVE-package-0", severity="high"
    )
    for key in {f"{0:016}", f"{number:016}"}:
        Remedy.objects.create(
            repository=where, image=derived, key=key, subject=key, kind="rebuild", base=first, base_tag="2.0",
            old_base=base, new_base=images[subject], high=1,
            closes=[[f"CVE-common-{number}", "high", "common", False, 0.5]],
        )  # fmt: skip
        TrendFact.objects.get_or_create(team=world.team, day=clock.now().date() - timedelta(days=number))
        fix, _ = TeamFix.objects.get_or_create(team=world.team, subject=key, defaults={"person": world.reader})
        FixComment.objects.create(fix=fix, author=world.asker, text="When?")
    # The newest image is an index at any number of rows: the first page of a list then always has one.
    dock.push(where, dock.index(f"index {number}", derived), "both", world.asker)


def add_promotions(world: World, number: int) -> None:
    """Add a request in every state that a list shows, a vote, a slot and an environment."""
    first, where = dock.repository("shop/app-0"), dock.repository(f"shop/app-{number}")
    derived = dock.Image.objects.get(digest=dock.sha(f"derived {number}"))
    subject = dock.Image.objects.get(digest=dock.sha("base 0"))
    dev, staging, live = world.environments
    now = clock.now()
    given: dict[str, Any] = {
        "tag": "2.0", "requested_by": world.asker, "reason": "release", "approve_by": now + timedelta(days=7)
    }  # fmt: skip
    place = create_environment(
        world.team, actor=system_user(), slug=f"place-{number}", name="Place", prefix=f"place-{number}"
    )
    save_rules(Scope(world.team, place), rule("r", "no_worse"), rule(f"x{number}", "sbom"))  # all places need the same
    first_place = Environment.objects.get(team=world.team, slug="place-0")
    save_rules(Scope(world.team, first_place), rule("r", "no_worse"), rule(f"x{number}", "sbom"))
    ask_waiver(world.team, "r", by=world.asker, environment=place)
    ask_decision(where, by=world.asker, vulnerability=f"CVE-2026-{number}")
    PrivateAdvisory.objects.create(
        osv_id=f"ACME-{number}", document={"id": f"ACME-{number}"}, state="live", author=world.asker
    )
    bring_document(world.team, by=world.asker, name=f"https://vendor.example/{number}")
    vex_feed(world.team, by=world.asker, name=f"feed-{number}")
    cluster = Cluster.objects.create(slug=f"cluster-{number}", team=world.team, created_by=world.asker)
    for each in {cluster, Cluster.objects.earliest("pk")}:
        NamespaceBinding.objects.create(cluster=each, pattern=f"space-{number}", environment=place)
        ClusterSecret.objects.create(
            cluster=each, kind="alerts", sha256=f"{each}{number}".encode(), created_by=world.asker,
            valid_until=now + timedelta(days=1),
        )  # fmt: skip
        Reporter.objects.create(
            cluster=each, name=f"host-{number}-{each}", boot="b", sequence=1, first_at=now, seen_at=now
        )
        RunningImage.objects.create(
            cluster=each, namespace=f"space-{number}", workload_kind="Deployment", workload_name="api", since=now,
            reference=where.name, digest=subject.digest, image=subject, platform=subject, repository=where,
            environment=place, containers=1,
        )  # fmt: skip
    Slot.objects.create(repository=where, environment=dev, image=derived, tag="2.0", since=now)
    for environment in (live, place):  # each request for a place finds its image in the environment before
        Slot.objects.get_or_create(repository=first, environment=environment, defaults={"image": subject, "since": now})
    PromotionRequest.objects.create(image=derived, repository=where, environment=staging, **given)
    PromotionRequest.objects.create(image=subject, repository=first, environment=place, **given)
    own_set = ReleaseSet.objects.create(
        environment=place, size=2, requested_by=world.asker, reason="x", approve_by=given["approve_by"]
    )
    PromotionRequest.objects.create(image=derived, repository=where, environment=place, release_set=own_set, **given)
    first_set = ReleaseSet.objects.filter(environment=dev).first() or ReleaseSet.objects.create(
        environment=dev, size=2, requested_by=world.asker, reason="x", approve_by=given["approve_by"]
    )
    PromotionRequest.objects.create(image=derived, repository=where, environment=dev, release_set=first_set, **given)
    voter = dock.user(f"voter-{number}", "approver", of=world.team)
    shown = PromotionRequest.objects.filter(repository=first, environment=staging).earliest("pk")
    Vote.objects.create(request=shown, voter=voter, value="approve", digest=shown.image.digest)
    PromotionRequest.objects.create(image=derived, repository=where, environment=live, state="ready", **given)
    ended: dict[str, Any] = given | {"finished_at": now, "executed_by": world.reader}
    PromotionRequest.objects.create(
        image=derived, repository=where, environment=live, state="failed", failure="why", **ended
    )
    rejected = PromotionRequest.objects.create(
        image=derived, repository=where, environment=live, state="rejected", **ended
    )
    Vote.objects.create(request=rejected, voter=world.reader, value="reject", digest=derived.digest)


def add_rebuilds(world: World, number: int) -> None:
    """Add a wave to confirm, an image of the first wave, log lines, a recipe and a watch."""
    first, where = dock.repository("shop/app-0"), dock.repository(f"shop/app-{number}")
    derived = dock.Image.objects.get(digest=dock.sha(f"derived {number}"))
    recipe = Recipe.objects.create(
        repository=first, revision=number + 1, containerfile="FROM scratch", author=world.asker, tag="2.0"
    )
    UpstreamWatch.objects.create(repository=first, tag=f"more-{number}", created_by=world.asker)
    base = dock.Image.objects.get(digest=dock.sha("base 0"))
    wave = RebuildWave.objects.create(repository=first, new_base=base, planned_by=world.reader)
    shown = RebuildWave.objects.earliest("pk")
    made = RebuildJob.objects.create(
        wave=shown, repository=where, level=1, old_image=derived, recipe=recipe, tag="2.0", would_fix=["CVE-1"]
    )
    if wave != shown:
        RebuildJob.objects.create(wave=wave, repository=where, level=1, old_image=derived, recipe=recipe, tag="2.0")
        made.parents.add(RebuildJob.objects.filter(wave=shown).earliest("pk"))
    run, _ = Job.objects.get_or_create(
        kind="rebuild", subject_id=RebuildJob.objects.earliest("pk").pk, defaults={"actor": world.reader}
    )
    JobLogLine.objects.create(job=run, text=f"STEP {number}")


def add_administration(world: World, number: int) -> None:
    """Add a team, a member, a robot, a grant and a token of the first robot, a role, a token, a job and an event."""
    admin, team = world.admin, world.team
    dock.user("reader", "owner", of=dock.team(f"team-{number}"))
    dock.user(f"member-{number}", "viewer", of=team)
    services.create_robot(team.pk, actor=admin, name=f"robot-{number}")
    robot = team.robots.earliest("pk")
    team.robots.exclude(pk=robot.pk).update(responsible=world.reader)
    services.create_robot_token(robot.pk, actor=admin, name=f"token-{number}")
    keyless.create_rule(
        robot.pk, actor=admin, name=f"rule-{number}", issuer="https://gitlab.com", claims={"project_path": "acme/shop"}
    )
    services.grant_robot(robot.pk, actor=admin, role="viewer", repository_pattern=f"shop/{number}")
    corp = IdentityProvider.objects.create(
        slug=f"corp-{number}", name="Corp", issuer=f"https://{number}.example.com", client_id="x"
    )
    ClaimRule.objects.create(
        provider=IdentityProvider.objects.earliest("pk"), claim="groups", value=f"group-{number}",
        role=Role.objects.get(slug="viewer"), team=team, created_by=admin,
    )  # fmt: skip
    Identity.objects.create(user=world.reader, issuer=corp.issuer, subject="1")
    group = services.create_group(actor=admin, slug=f"group-{number}", team=team.slug)
    first_group = team.groups.earliest("pk")
    services.add_to_group(first_group.pk, actor=admin, username=f"member-{number}")
    if group != first_group:
        services.add_to_group(first_group.pk, actor=admin, group=str(group))
    services.add_group(team.pk, actor=admin, group=str(first_group), role="viewer", repository_pattern=f"shop/{number}")
    services.create_role(actor=admin, slug=f"role-{number}", name="", verbs=["image.view"])
    AccessRequest.objects.create(
        team=team, requester=world.asker, role=Role.objects.get(slug=f"role-{number}"), days=7, reason="on call"
    )
    services.create_api_token(world.reader, actor=world.reader, name=f"token-{number}")
    SigningKey.objects.create(
        name=f"key-{number}", public_key="PEM", fingerprint=dock.sha(f"key {number}"), created_by=admin
    )
    source = TrustedSource.objects.create(name=f"source-{number}", places=["quay.io/*"], created_by=admin)
    source.teams.set([team])
    signer = TrustedSigner.objects.create(source=source, kind="key", pem="x", fingerprint=dock.sha(f"key {number}"))
    image = dock.Image.objects.get(digest=dock.sha("base 0"))
    signature = Signature.objects.create(
        image=image, repository=dock.repository("shop/app-0"), manifest_digest=dock.sha(f"manifest {number}"),
        object_digest=dock.sha(f"object {number}"), format="bundle", state="verified", checked_at=clock.now(),
    )  # fmt: skip
    signature.signers.set([signer])
    repository = Repository.objects.get(name=f"shop/app-{number}")
    image = dock.Image.objects.get(digest=dock.sha(f"derived {number}"))
    Job.objects.create(kind="scan", subject_id=image.pk, actor=world.reader, state="failed", finished_at=clock.now())
    PromotionWindow.objects.create(
        team=team, name=f"window-{number}", kind="allow", starts_at="2026-01-01T00:00:00", duration_s=86_400,
        time_zone="UTC", rule="FREQ=DAILY", created_by=world.asker,
    )  # fmt: skip
    Hold.objects.create(team=team, scope="auto", reason="test", owner=world.asker)
    notice = Notice.objects.create(
        topic="promotion.asked", key=f"row-{number}", thread=f"thread-{number}", subject="x", text="x", link="/",
        repository=repository, environment=world.environments[0],
    )  # fmt: skip
    InboxItem.objects.create(notice=notice, person=world.reader)
    Feed.objects.create(name=f"other-{number}", location="https://feed.example.com", result={"stored": number})
    Registry.objects.create(name=f"other-{number}", endpoint=f"https://r{number}.example.com", is_added=True)
    channel = Channel.objects.create(
        team=team, name=f"channel-{number}", kind="webhook", topics=["x"], created_by=world.reader
    )
    ExternalCheck.objects.create(team=team, name=f"check-{number}", host="h", created_by=world.reader)
    first_channel = Channel.objects.earliest("pk")
    Message.objects.create(channel=first_channel, key=f"key-{number}", thread=channel.name, due_at=clock.now())
    ends_at = clock.now() + timedelta(days=3)
    Mute.objects.create(person=world.reader, scope="repository", value=f"shop/{number}", until=ends_at)
    audit.record(Action.PROMOTION_READY, actor=world.asker, team=team, repository=repository, reason="event")
