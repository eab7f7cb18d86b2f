"""Promote bench: from an approval to a tag, a keyless signature, 20 rules for an image, a what-if over 5,000 images."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from accounts import tokens
from accounts.models import ApiToken, Role, Team, User
from accounts.queries import system_user
from lifecycle.authority.models import RoleGrant
from lifecycle.authority.services.environments import create_environment
from lifecycle.bench import files, loading
from lifecycle.bench.measuring import TRIAL, Caller, Unusable, percentile, seconds_of, timings_ms
from lifecycle.bench.processes import Processes
from lifecycle.bench.pushing import PATIENCE_S, POLL_S, await_rows, pusher, registry_client
from lifecycle.bench.types import Figure, Figures
from lifecycle.core.errors import RegistryRefused
from lifecycle.environments.models import Environment, Slot
from lifecycle.evidence.findings import is_matching
from lifecycle.evidence.verdicts import judge
from lifecycle.oci.client import ManifestUnknown, RegistryClient
from lifecycle.policies import services
from lifecycle.policies.types import Scope
from lifecycle.promotion.gates import BEFORE
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.services import request_promotion
from lifecycle.promotion.what_if import what_if
from lifecycle.registry.clients import client_for
from lifecycle.registry.models import Image, Repository, RepositoryImage
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.sbom import services as sbom
from lifecycle.sbom.packages import Package
from lifecycle.signatures.bundles import parse_bundle
from lifecycle.signatures.keyless import verify_keyless
from lifecycle.signatures.roots import shipped_root
from lifecycle.signatures.types import Artifact

_CLICK_TARGET_MS: Final = 2000.0
_KEYLESS_TARGET_MS: Final = 50.0
_VERDICT_TARGET_MS: Final = 20.0
_WHAT_IF_TARGET_S: Final = 10.0
_SUBJECTS: Final = 5000
_VERDICTS: Final = 200
_APPROVALS: Final = 40
_SIGNATURES: Final = 100
_BUNDLE: Final = Path(__file__).with_name("data")
_PROMOTED: Final = "bench/promoted"
_EXPRESSION: Final = "platforms.all(p, p.platform.startsWith('linux/'))"


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load the data, save 20 rules for the site, then judge single images, and all by a draft."""
    dock = loading.load(images, note=note)
    loading.complete(dock, note=note)
    note("approving")
    with Processes() as processes:
        processes.web()
        processes.registry()
        processes.workers()
        clicks = _clicks(_APPROVALS if images >= TRIAL else 3)
    note("verifying a keyless signature")
    keyless = _keyless(_SIGNATURES if images >= TRIAL else 3)
    places = _fill_slots()
    for modes, seen in (("observe", 0), ("enforce", 1)):
        services.save_policy(Scope(), _rules(modes), actor=system_user(), seen=seen)
    loading.as_owner("VACUUM ANALYZE")
    note("judging single images")
    rows = Slot.objects.filter(environment__in=places).select_related("repository__team", "environment__team", "image")
    slots = list(rows.defer("image__manifest", "image__config").order_by("?")[:_VERDICTS])
    _judge(slots[0])  # starts the process of expressions
    verdicts = timings_ms([partial(_judge, slot) for slot in slots])
    note("what if")
    draft = services.draft_of(Scope(), _rules("enforce"))
    result: list[Any] = []
    what_if_s = seconds_of(lambda: result.append(what_if(draft, reader=system_user())))
    return {
        "approval_to_tag_p50": Figure(percentile(clicks, 0.5), "ms"),
        "approval_to_tag_p95": Figure(percentile(clicks, 0.95), "ms", _CLICK_TARGET_MS),
        "keyless_bundle_p50": Figure(percentile(keyless, 0.5), "ms"),
        "keyless_bundle_p95": Figure(percentile(keyless, 0.95), "ms", _KEYLESS_TARGET_MS),
        "verdict_of_20_rules_p50": Figure(percentile(verdicts, 0.5), "ms"),
        "verdict_of_20_rules_p95": Figure(percentile(verdicts, 0.95), "ms", _VERDICT_TARGET_MS),
        "what_if_subjects": Figure(result[0].judged_now + result[0].judged_requests, "subjects"),
        "what_if": Figure(what_if_s, "s", _WHAT_IF_TARGET_S),
    }


def _clicks(count: int) -> list[float]:
    """Return the milliseconds from each approval, by the API, until the target's tag answers with the digest.

    The image is in the registry, its packages are known, and the environment runs what is ready.
    """
    pushed_by = pusher()
    registry = ensure_managed_registry()
    team = Team.objects.get(slug="bench")
    place = create_environment(team, actor=system_user(), slug="live", name="Live", prefix="bench-live")
    Environment.objects.filter(pk=place.pk).update(required_approvals=1, auto_execute=True)
    place.refresh_from_db()
    people = {}
    for name, role in (("asker", "creator"), ("approver", "owner")):
        people[name] = User.objects.create_user(f"bench-{name}")
        RoleGrant.objects.create(user=people[name], role=Role.objects.get(slug=role), team=team)
    _, text = tokens.create_token(people["approver"], kind=ApiToken.Kind.PERSONAL, name="bench")
    caller = Caller(settings.PUBLIC_URL, {"Authorization": f"Bearer {text}"})
    found = []
    with registry_client(pushed_by) as client:
        target = client_for(registry)
        for number in range(-1, count):  # one to warm up
            digest = _ready_for_approval(client, number)
            repository = Repository.objects.select_related("team", "registry").get(name=_PROMOTED)
            request = request_promotion(repository, digest, place, actor=people["asker"], reason="bench")
            started = time.perf_counter()
            caller.post(f"/api/v1/promotions/{request.pk}/approve/", {})
            _await_tag(target, f"{place.prefix}/{_PROMOTED}", request.tag, digest)
            if number >= 0:
                found.append(1000 * (time.perf_counter() - started))
            _await_end(request)
    caller.close()
    return found


def _ready_for_approval(client: RegistryClient, number: int) -> str:
    """Push an image, list its packages as a scan does, and wait until they are compared with the advisories."""
    image = files.small_image(f"promoted {number}")
    files.push_blobs(client, _PROMOTED, image)
    files.push_manifest(client, _PROMOTED, image, f"1.{number + 1}")
    await_rows(_PROMOTED, {image.digest})
    row = Image.objects.get(digest=image.digest)
    package = Package("pkg:deb/debian/bash@5.2.15-2?distro=debian-12", layer_position=0)
    sbom.store({row.pk: sbom.Content([package], distro="debian-12")}, actor=system_user())
    _wait(lambda: not is_matching([row.pk]), "The packages of a pushed image were not matched.")
    return image.digest


def _await_tag(client: RegistryClient, repository: str, tag: str, digest: str) -> None:
    def is_there() -> bool:
        try:
            found = client.get_manifest(repository, tag)
        except (RegistryRefused, ManifestUnknown):
            return False
        return bool(found.digest.text == digest)

    _wait(is_there, f"{repository}:{tag} did not appear.")


def _await_end(request: PromotionRequest) -> None:
    def is_done() -> bool:
        request.refresh_from_db()
        return request.is_final

    _wait(is_done, f"{request} did not end: {request.state} {request.failure}")


def _wait(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise Unusable(problem)
        time.sleep(POLL_S)


def _keyless(count: int) -> list[float]:
    """Return the milliseconds of each verification of a keyless bundle: parsed, certificate, log, signature, identity.

    The bundle and its source: lifecycle/bench/data/README.md. The root is the one that ships with us.
    """
    content, artifact = (_BUNDLE / "bundle.sigstore.json").read_bytes(), Artifact.of_file(_BUNDLE / "a.txt")
    root = shipped_root(is_staging=False)

    def verify() -> None:
        verify_keyless(parse_bundle(content), root, artifact)

    verify()  # loads the library
    return timings_ms([verify] * count)


def _judge(slot: Slot) -> None:
    if slot.image is not None:
        judge(slot.image, slot.repository, slot.environment, BEFORE)


def _rules(mode: str) -> list[dict[str, Any]]:
    """Return 20 rules of all kinds that judge, for every point."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("findings", {"severity": "critical"}),
        ("findings", {"severity": "high", "fixable_only": True}),
        ("findings", {"severity": "high", "older_than_days": 14}),
        ("findings", {"severity": "medium", "maximum": 20}),
        ("findings", {"severity": "low", "maximum": 200, "accept_unjudged": True}),
        ("no_worse", {"severity": "critical"}),
        ("no_worse", {"severity": "high", "accept_unjudged": True}),
        ("sbom", {}),
        ("sbom", {"max_age_days": 30}),
        ("base_current", {}),
        ("base_current", {"max_days_behind": 14}),
        ("image_age", {"max_days": 90}),
        ("rebuilt_within", {"max_days": 30}),
        ("not_root", {}),
        ("not_root", {"number_only": True}),
        ("labels", {"labels": ["org.opencontainers.image.source"]}),
        ("platforms", {}),
        ("platforms", {"platforms": ["linux/amd64"]}),
        ("promoted", {"environment": "dev", "hours": 24}),
        ("cel", {"expression": _EXPRESSION}),
    ]
    points = ("ingest", "request", "execution", "admission")
    return [
        {"key": f"rule-{number}", "kind": kind, "parameters": values, "modes": dict.fromkeys(points, mode)}
        for number, (kind, values) in enumerate(kinds)
    ]


def _fill_slots() -> list[Environment]:
    """Put different images of each repository into new environments of its team, until there are 5,000."""
    rows = RepositoryImage.objects.filter(repository__environment=None, is_top_level=True, removed_at=None)
    rows = rows.exclude(image__kind="artifact").order_by("-pk")
    found = list(rows.values_list("repository_id", "repository__team_id", "image_id")[:_SUBJECTS])
    rounds: dict[int, int] = {}
    places: dict[tuple[int, int], Environment] = {}
    slots = []
    with transaction.atomic():
        for repository_id, team_id, image_id in found:
            number = rounds[repository_id] = rounds.get(repository_id, -1) + 1
            place = places.get((team_id, number)) or _place(places, team_id, number)
            slots.append(Slot(repository_id=repository_id, environment=place, image_id=image_id, since=Now()))
        Slot.objects.bulk_create(slots, batch_size=1000)
    return list(places.values())


def _place(places: dict[tuple[int, int], Environment], team_id: int, number: int) -> Environment:
    team = Team.objects.get(pk=team_id)
    made = create_environment(team, actor=system_user(), slug=f"bench-{number}", name="Bench", prefix=f"bench-{number}")
    return places.setdefault((team_id, number), made)
