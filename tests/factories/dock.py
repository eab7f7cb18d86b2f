"""Rows for page tests: a small dock with a base, what stands on it, packages and findings. Dull on purpose."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from accounts.models import Role, Team, User
from accounts.queries import system_user
from accounts.verbs import BUILTIN_ROLES
from lifecycle.advisories.models import Advisory, Coverage, Feed, Match
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services import create_environment
from lifecycle.core import clock
from lifecycle.environments.models import Slot
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.promotion import services as promotions
from lifecycle.promotion.models import PromotionRequest
from lifecycle.rebuild.models import BuilderPermit
from lifecycle.registry.models import Image, IndexEntry, Layer, Registry, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.sbom.models import ImageInventory, Inventory, InventoryPackage, PackageVersion, Sbom


def sha(text: str) -> str:
    """Return a digest that belongs to `text` in these tests."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def registry() -> Registry:
    return Registry.objects.get_or_create(
        name="managed", defaults={"endpoint": "http://localhost:5000", "is_managed": True}
    )[0]


def team(slug: str) -> Team:
    """Return a team for which the embedded builder is on."""
    found, is_new = Team.objects.get_or_create(slug=slug, defaults={"name": slug.capitalize()})
    if is_new:
        BuilderPermit.objects.create(team=found, turned_on_by=system_user())
    return found


def user(name: str, *roles: str, of: Team | None = None) -> User:
    """Return a person who holds built-in roles over every repository of a team."""
    person = User.objects.filter(username=name).first() or User.objects.create_user(name, password="dock-side-pass")
    for slug in roles:
        assert of is not None
        role, _ = Role.objects.get_or_create(
            slug=slug, defaults={"name": slug, "verbs": sorted(BUILTIN_ROLES[slug]), "is_builtin": True}
        )
        RoleGrant.objects.get_or_create(user=person, role=role, team=of, repository_pattern="*", environment=None)
    return person


def repository(name: str, owner: Team | None = None) -> Repository:
    owner = owner or team(name.partition("/")[0])
    return Repository.objects.get_or_create(registry=registry(), name=name, defaults={"team": owner, "family": name})[0]


def image(name: str, *, layers: int = 3, under: Image | None = None, **more: Any) -> Image:
    """Return a platform manifest; its first layers are those of `under`."""
    now = clock.now()
    made = Image.objects.create(
        digest=sha(name),
        kind=Image.Kind.MANIFEST,
        media_type="application/vnd.oci.image.manifest.v1+json",
        manifest=more.pop("manifest", b"{}"),
        os="linux",
        architecture=more.pop("architecture", "amd64"),
        size_bytes=48_200_000 + 9_000_000 * layers,
        layer_count=layers,
        created_at=now - timedelta(days=3),
        **more,
    )
    shared = list(under.layers.all()) if under else []
    for position in range(layers):
        below = shared[position] if position < len(shared) else None
        Layer.objects.create(
            image=made,
            position=position,
            digest=below.digest if below else sha(f"{name} layer {position}"),
            diff_id=below.diff_id if below else sha(f"{name} diff {position}"),
            size_bytes=below.size_bytes if below else 9_000_000 + 700_000 * position,
            created_by=below.created_by if below else f"RUN install step {position} of {name}",
        )
    return made


def push(where: Repository, what: Image, tag: str, by: User | None = None) -> Tag:
    """Put an image into a repository under a tag, and keep where the tag pointed before."""
    RepositoryImage.objects.get_or_create(repository=where, image=what, defaults={"pushed_by": by})
    row = Tag.objects.filter(repository=where, name=tag).first()
    old = row.image if row else None
    if row is None:
        row = Tag.objects.create(repository=where, name=tag, image=what, updated_at=clock.now())
    else:
        row.image, row.updated_at = what, clock.now()
        row.save(update_fields=["image", "updated_at"])
    TagEvent.objects.create(tag=row, old_image=old, new_image=what, via=TagEvent.Via.PUSH, actor=by)
    return row


def index(name: str, *children: Image) -> Image:
    made = Image.objects.create(
        digest=sha(name), kind=Image.Kind.INDEX, media_type="application/vnd.oci.image.index.v1+json", size_bytes=1200
    )
    for position, child in enumerate(children):
        IndexEntry.objects.create(index=made, child=child, position=position, platform=child.platform)
    return made


def derive(base: Image, derived: Image, *, evidence: tuple[str, ...] = ("layers",), confidence: str = "high") -> None:
    """Record that `derived` was built on `base`, with the closure."""
    Derivation.objects.create(base=base, derived=derived, evidence=list(evidence), confidence=confidence)
    above = {row.ancestor_id: row.depth for row in Ancestry.objects.filter(descendant=base)} | {base.pk: 0}
    for ancestor, depth in above.items():
        Ancestry.objects.get_or_create(ancestor_id=ancestor, descendant=derived, defaults={"depth": depth + 1})


def covered(ecosystem: str, release: str = "") -> None:
    """Say that a feed has advisories of this ecosystem and release, so that its packages can be judged."""
    Coverage.objects.get_or_create(ecosystem=ecosystem, release=release)


def package(name: str, version: str, *, kind: str = "deb", source: str = "") -> PackageVersion:
    ecosystem, release = ("Debian", "12") if kind == "deb" else ("PyPI", "")
    covered(ecosystem, release)
    return PackageVersion.objects.get_or_create(
        purl=f"pkg:{kind}/{'debian/' if kind == 'deb' else ''}{name}@{version}",
        defaults={
            "type": kind,
            "name": name,
            "version": version,
            "source_name": source,
            "source_version": version if source else "",
            "ecosystem": ecosystem,
            "release": release,
            "match_name": source or name,
            "match_version": version,
            "scheme": "dpkg" if kind == "deb" else "pep440",
        },
    )[0]


def carry(what: Image, layer: int | None, *packages: PackageVersion) -> None:
    """Say that a layer of an image brought packages, and that the image was scanned."""
    key = sha(",".join(sorted(item.purl for item in packages)))
    inventory, is_new = Inventory.objects.get_or_create(digest=key, defaults={"package_count": len(packages)})
    if is_new:
        for item in packages:
            InventoryPackage.objects.create(inventory=inventory, package=item)
    ImageInventory.objects.create(image=what, inventory=inventory, layer_position=layer)
    Sbom.objects.get_or_create(image=what, digest=sha("sbom " + what.digest), format="syft-json", tool="syft 1.18.1")
    what.scanned_at = what.risk_at = clock.now()
    what.distro = "debian-12"
    what.package_count += len(packages)
    what.save(update_fields=["scanned_at", "risk_at", "distro", "package_count"])


def advisory(osv_id: str, severity: str, *packages: PackageVersion, fixed: str = "", summary: str = "") -> Advisory:
    """Match an advisory to package versions."""
    feed, _ = Feed.objects.get_or_create(name="debian-12", defaults={"location": "a folder"})
    made = Advisory.objects.create(
        feed=feed,
        osv_id=osv_id,
        directory="Debian",
        modified="2026-11-01T00:00:00Z",
        severity=severity,
        summary=summary,
    )
    for item in packages:
        Match.objects.create(
            advisory=made,
            package=item,
            severity=severity,
            fixed_version=fixed,
            interval_text=f"{item.match_name} {item.version} < {fixed}"
            if fixed
            else f"{item.match_name}: all versions",
        )
    return made


def count_risk(what: Image) -> None:
    """Refresh the stored risk of one image, as the advisories package does."""
    matches = Match.objects.filter(valid_to=None, package__inventory_packages__inventory__image_inventories__image=what)
    rows = set(matches.values_list("id", "severity", "fixed_version"))
    for name in ("critical", "high", "medium", "low"):
        setattr(what, f"{name}_count", sum(row[1] == name for row in rows))
    what.unknown_count = sum(row[1] in {"unknown", "none"} for row in rows)
    what.fixable_count = sum(bool(row[2]) for row in rows)
    what.save()


def harbour() -> dict[str, Any]:
    """Make the dock that pictures and page tests show: four levels, one base left behind, findings as they look."""
    base_team, shop = team("base"), team("shop")
    reader = user("shop-dev", "owner", of=shop)
    user("shop-dev", "owner", of=base_team)
    openssl = package("libssl3", "3.0.11-1~deb12u2", source="openssl")
    perl = package("perl-base", "5.36.0-7", source="perl")
    expat = package("libexpat1", "2.5.0-1", source="expat")
    tar = package("tar", "1.34+dfsg-1.2")
    urllib3, requests = package("urllib3", "1.26.5", kind="pypi"), package("requests", "2.25.0", kind="pypi")
    old = image("base/debian old", layers=1, annotations={}, labels={"org.opencontainers.image.title": "base/debian"})
    new = image("base/debian new", layers=1)
    python = image("base/python", layers=3, under=old)
    api = image("shop/api", layers=5, under=python, labels={"org.opencontainers.image.source": "shop/api"})
    worker = image("shop/worker", layers=6, under=api)
    static = image("shop/static", layers=2, under=old)
    names = {"base/debian": old, "base/python": python, "shop/api": api, "shop/worker": worker, "shop/static": static}
    for name, what in names.items():
        push(repository(name), what, "bookworm" if name == "base/debian" else "1.0", reader)
    push(repository("base/debian"), new, "bookworm", reader)
    repository("shop/checkout")
    derive(old, python)
    derive(old, static)
    derive(python, api)
    derive(api, worker, evidence=("annotation",), confidence="low")
    for number in range(4):
        job = image(f"shop/jobs {number}", layers=6, under=api)
        push(repository("shop/jobs"), job, f"1.{number}", reader)
        derive(api, job)
    advisory("CVE-2024-5535", "critical", openssl, fixed="3.0.14-1~deb12u1", summary="openssl: buffer overread")
    advisory("CVE-2023-5678", "medium", openssl, fixed="3.0.13-1~deb12u1")
    advisory("CVE-2024-45490", "high", expat, fixed="2.5.0-1+deb12u1")
    advisory("CVE-2011-4116", "low", perl)
    advisory("TEMP-0290435-0B57B5", "unknown", tar)
    advisory("GHSA-v845-jxx5-vc9f", "medium", urllib3, fixed="1.26.17")
    advisory("GHSA-j8r2-6x86-q33q", "medium", requests, fixed="2.31.0")
    for name, what in names.items():
        carry(what, 0, openssl, perl, expat, tar)
        if name in {"shop/api", "shop/worker"}:
            carry(what, 4, urllib3, requests)
        count_risk(what)
    return {"reader": reader, "old": old, "new": new, "api": api, "worker": worker}


def quay() -> dict[str, Any]:
    """Make the harbour with environments and requests in every state that the promotion pages show.

    `release-approver` decides and carries out, `security-duty` decides, `shop-dev` asks.
    """
    made = harbour()
    shop, asker = team("shop"), made["reader"]
    approver = user("release-approver", "approver", "deployer", of=shop)
    second = user("security-duty", "approver", of=shop)
    system = system_user()
    places = {
        slug: create_environment(
            shop, actor=system, slug=slug, name=slug.capitalize(), prefix=slug, required_approvals=approvals
        )
        for slug, approvals in (("dev", 0), ("staging", 1), ("production", 1))
    }
    old, debian = made["api"], made["new"]
    openssl = package("libssl3", "3.0.15-1~deb12u1", source="openssl")
    expat = package("libexpat1", "2.5.0-1+deb12u1", source="expat")
    perl, tar = package("perl-base", "5.36.0-7", source="perl"), package("tar", "1.34+dfsg-1.2")
    urllib3 = package("urllib3", "2.5.0", kind="pypi")
    requests, httpx = package("requests", "2.32.3", kind="pypi"), package("httpx", "0.27.2", kind="pypi")
    advisory("CVE-2025-66418", "medium", urllib3, fixed="2.6.0", summary="urllib3: unbounded links of compressions")
    config = {"config": {"Env": ["PATH=/usr/bin", "LOG_LEVEL=info"], "Cmd": ["serve"], "Labels": {"version": "2.14.1"}}}
    Image.objects.filter(pk=old.pk).update(
        config={"config": {"Env": ["PATH=/usr/bin"], "Cmd": ["serve"], "Labels": {"version": "1.0"}}}
    )
    python = image("base/python 2", layers=3, under=debian)
    api = image("shop/api 2.14.1", layers=5, under=python, config=config)
    carry(api, 0, openssl, perl, expat, tar)
    carry(api, 4, urllib3, requests, httpx)
    count_risk(api)
    push(repository("shop/api"), api, "2.14.1", asker)
    fresh = image("shop/web 1.88.3", layers=4, under=python)
    push(repository("shop/web"), fresh, "1.88.3", asker)

    def hold(name: str, slug: str, what: Image, tag: str, days: int) -> None:
        Slot.objects.update_or_create(
            repository=repository(name),
            environment=places[slug],
            defaults={"image": what, "tag": tag, "since": clock.now() - timedelta(days=days)},
        )

    def ask(name: str, slug: str, what: Image, reason: str, hours: int) -> PromotionRequest:
        asked = promotions.request_promotion(repository(name), what.digest, places[slug], actor=asker, reason=reason)
        at = clock.now() - timedelta(hours=hours)
        PromotionRequest.objects.filter(pk=asked.pk).update(created_at=at, approve_by=at + timedelta(days=7))
        asked.refresh_from_db()
        return asked

    for slug, what, tag, days in (
        ("dev", api, "2.14.1", 3),
        ("staging", api, "2.14.1", 2),
        ("production", old, "1.0", 19),
    ):
        hold("shop/api", slug, what, tag, days)
    hold("shop/worker", "dev", made["worker"], "1.0", 6)
    hold("shop/static", "dev", Image.objects.get(digest=sha("shop/static")), "1.0", 30)
    jobs = [Image.objects.get(digest=sha(f"shop/jobs {number}")) for number in range(4)]
    for job in jobs:
        carry(job, 0, openssl, perl)
        count_risk(job)
        hold("shop/jobs", "dev", job, "1.3", 1)
    rejected = ask("shop/static", "staging", Image.objects.get(digest=sha("shop/static")), "Trial run.", 70)
    promotions.reject(rejected.pk, actor=approver, reason="The base is one release behind; rebase it first.")
    failed = ask("shop/jobs", "dev", jobs[2], "Nightly.", 52)
    promotions.execute(failed.pk, actor=approver)
    promotions.fail(failed, why="The registry refused the manifest: quota of the target repository used.")
    running = ask("shop/jobs", "dev", jobs[1], "Nightly.", 1)
    promotions.execute(running.pk, actor=approver)
    ready = ask("shop/jobs", "staging", jobs[3], "Nightly jobs with the patched openssl.", 20)
    promotions.approve(ready.pk, actor=second, reason="Same code, new base.")
    unscanned = ask("shop/web", "dev", fresh, "First image of the new shop window.", 9)
    skipping = ask("shop/worker", "production", made["worker"], "Hotfix of the retry loop; staging is frozen.", 5)
    waiting = ask("shop/worker", "staging", made["worker"], "Retry loop fixed.", 3)
    opened = ask(
        "shop/api",
        "production",
        api,
        "Picks up the openssl and expat fixes from base python. In the application only urllib3 and requests move.",
        2,
    )
    return made | {
        "approver": approver, "second": second, "places": places, "new_api": api, "open": opened, "ready": ready,
        "failed": failed, "rejected": rejected, "running": running, "unscanned": unscanned, "skipping": skipping,
        "waiting": waiting,
    }  # fmt: skip
