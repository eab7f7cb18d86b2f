"""Reads what a snapshot contains, and the decisions that a user can see."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet

from accounts.models import User
from lifecycle.admission import snapshot
from lifecycle.admission.carrying import ENDED, Term, key_of
from lifecycle.admission.models import (
    AdmissionDebt,
    AdmissionDecision,
    AdmissionEntry,
    AdmissionEpoch,
    AdmissionVerdict,
)
from lifecycle.authority.queries import teams_visible_to
from lifecycle.clusters.models import Cluster, NamespaceBinding
from lifecycle.clusters.queries import binding_for, bindings_of, valid_secrets
from lifecycle.core import clock
from lifecycle.core.image_names import parse_image_name
from lifecycle.environments.models import Environment
from lifecycle.evidence.isolation import image_configs
from lifecycle.policies.queries import effective_rules
from lifecycle.policy.catalogue import ISOLATION
from lifecycle.policy.isolation_types import ImageConfig
from lifecycle.policy.rulesets import Mode, Point, isolation_modes
from lifecycle.promotion.models import PromotionRequest
from lifecycle.quarantine.models import Quarantine
from lifecycle.quarantine.queries import covered_ids
from lifecycle.quarantine.types import Cover
from lifecycle.registry.models import Image, IndexEntry, Registry, Repository

_EPOCHS_BACK: Final = 2000  # a transaction that commits late has a lower number; this many are looked back
_FACTS_AT_ONCE: Final = 2000
_ENTRIES_MAX: Final = 10_000  # of a cluster: the newest
_UNJUSTIFIED_TOLD: Final = timedelta(days=2)  # servers remember what came in for a day at most
_DEPTH_MAX: Final = 5  # indexes in indexes
READ_AT_ONCE: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_DIGESTS: Final = "SELECT id, digest FROM lifecycle_image"
_TAGS: Final = """
SELECT r.registry_id, r.name, t.name, i.digest
FROM lifecycle_tag t
JOIN lifecycle_repository r ON r.id = t.repository_id
JOIN lifecycle_image i ON i.id = t.image_id
WHERE r.registry_id = ANY(%s)
"""
Standing = dict[int, dict[int, tuple[str, str]]]  # image id -> environment id -> (standing, reason)


def epochs_since(seen: set[int]) -> set[int]:
    """Return the numbers of recent changes; what is not in `seen` came since."""
    last = max(seen, default=0)
    return set(AdmissionEpoch.objects.filter(pk__gt=last - _EPOCHS_BACK).values_list("pk", flat=True))


@transaction.atomic
def snapshot_of_one_moment(number: int, facts: dict[int, ImageConfig] | None = None) -> tuple[bytes, set[int]]:
    """Return the content of the snapshot of now, and the changes that it includes. Everything is of one moment.

    Call it outside of a transaction.
    """
    with connection.cursor() as cursor:
        cursor.execute(READ_AT_ONCE)
    return snapshot_content(number, facts)


def snapshot_content(number: int, facts: dict[int, ImageConfig] | None = None) -> tuple[bytes, set[int]]:
    """Return the content of a snapshot, and the changes that it includes.

    `facts` keeps what is known of images from one snapshot to the next; the caller empties it now and then.
    """
    at = time.time()
    seen = epochs_since(set())
    hosts, registries = _hosts()
    standing = standings()
    quarantined = _quarantined()
    isolation = isolation_enforced()
    images = _facts_of_images(standing, isolation, {} if facts is None else facts)
    content = snapshot.build(
        number,
        {"hosts": hosts, "targets": _targets(registries), "isolation": isolation, **_configuration()},
        _digests(standing, quarantined, images),
        _tags(registries),
        written_at=at,
    )
    return content, seen


def _hosts() -> tuple[dict[str, str], dict[int, str]]:
    """Return {host as people write it: host of the registry}, and the host of each registry of ours by its id."""
    hosts: dict[str, str] = {}
    registries: dict[int, str] = {}
    for row in Registry.objects.all():
        if not row.is_ours:
            continue
        host = parse_image_name(f"{row.host}/x/y").host  # one name for Docker Hub
        registries[row.pk] = host
        hosts[host] = host
        if row.is_managed:
            hosts |= {urlsplit(url).netloc: host for url in (settings.REGISTRY_PUBLIC_URL, settings.REGISTRY_URL)}
    return hosts, registries


def _configuration() -> dict[str, Any]:
    secrets = defaultdict(list)
    for secret in valid_secrets("admission"):
        until = secret.valid_until.timestamp() if secret.valid_until else None
        secrets[secret.cluster_id].append([bytes(secret.sha256).hex(), until])
    clusters, environments, now = {}, {}, clock.now()
    for cluster in Cluster.objects.filter(ended_at=None).select_related("team"):
        bindings, rows = [], list(bindings_of(cluster))
        for row in rows:
            environments[str(row.environment_id)] = [row.environment.team.slug, row.environment.slug]
            bindings.append([row.pattern, row.environment_id, row.mode, row.allowed_hosts])
        clusters[cluster.slug] = {
            "pk": cluster.pk,
            "team": cluster.team.slug,
            "mode": cluster.mode,
            "tags": cluster.tags,
            "unbound": cluster.unbound,
            "subjects": cluster.breakglass_subjects,
            "stale_after_s": cluster.stale_after_s,
            "mutate": cluster.mutate,
            "secrets": secrets[cluster.pk],
            "bindings": bindings,
            # Beside the bindings, so that a server of an earlier version still reads these.
            "enforced_at": [_seconds(at) for at in (cluster.unbound_enforced_at, *(row.enforced_at for row in rows))],
            "terms": {key: [term.entered_at, term.until] for key, term in entry_terms(cluster, rows, now).items()},
        }
    return {"clusters": clusters, "environments": environments}


def entry_terms(cluster: Cluster, bindings: Sequence[NamespaceBinding], now: datetime) -> dict[str, Term]:
    """Return {key: for how long} of what break-glass annotations open that controllers carry on in a cluster.

    Those that came in since enforcement of the namespace began: before, also others could have written the same text.
    What is overdue or was called unjustified is among them, so that servers do not trust what they remember longer.
    """
    rows = (
        AdmissionEntry.objects.filter(cluster=cluster)
        .exclude(debt__outcome=AdmissionDebt.Outcome.UNJUSTIFIED, debt__reviewed_at__lt=now - _UNJUSTIFIED_TOLD)
        .select_related("debt")
        .order_by("-entered_at")
    )
    found: dict[str, Term] = {}
    for row in rows[:_ENTRIES_MAX]:
        binding = binding_for(bindings, row.namespace)
        begins_at = cluster.unbound_enforced_at if binding is None else binding.enforced_at
        if begins_at is None or row.entered_at < begins_at:
            continue
        term = Term(row.entered_at.timestamp(), _until(row.debt))
        for name in row.debt.digests:
            key = key_of(row.namespace, (row.workload_kind, row.workload_name), row.text_sha256, name)
            if key in found or len(found) < _ENTRIES_MAX:
                found[key] = _longer(found.get(key, term), term)
    return found


def _until(debt: AdmissionDebt) -> float | None:
    if debt.outcome == AdmissionDebt.Outcome.JUSTIFIED:
        return None
    return ENDED if debt.outcome == AdmissionDebt.Outcome.UNJUSTIFIED else debt.due_at.timestamp()


def _longer(one: Term, other: Term) -> Term:
    return one if one.until is None or (other.until is not None and one.until >= other.until) else other


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None


def bound_environments() -> QuerySet[Environment]:
    """Return the environments that a cluster has namespaces for."""
    return Environment.objects.filter(Exists(NamespaceBinding.objects.filter(environment=OuterRef("pk"))))


def ruled_environments() -> set[int]:
    """Return the ids of bound environments with a rule about images that enforces at admission.

    Isolation is judged with the pod: its settings can overrule what the image says.
    """
    return {
        environment.pk
        for environment in bound_environments().select_related("team")
        if any(
            rule.mode(Point.ADMISSION) is Mode.ENFORCE and rule.kind != ISOLATION
            for rule in effective_rules(environment.team, environment).rules
        )
    }


def _targets(registries: dict[int, str]) -> dict[str, int]:
    """Return {host/repository: environment id} of the repositories that promotions to bound environments fill."""
    rows = Repository.objects.filter(environment__in=bound_environments().values("pk"), registry__in=registries)
    return {
        f"{registries[registry_id]}/{name}": environment_id
        for registry_id, name, environment_id in rows.values_list("registry_id", "name", "environment_id")
        if environment_id is not None
    }


def isolation_enforced() -> dict[str, dict[str, str]]:
    """Return {environment id: {isolation check: mode}} of the checks that bound environments enforce at admission."""
    found = {}
    for environment in bound_environments().select_related("team"):
        modes = isolation_modes(effective_rules(environment.team, environment).rules, Point.ADMISSION)
        if enforced := {check: mode for check, mode in modes.items() if mode == Mode.ENFORCE.value}:
            found[str(environment.pk)] = enforced
    return found


def _facts_of_images(
    standing: Standing, isolation: dict[str, dict[str, str]], known: dict[int, ImageConfig]
) -> dict[int, ImageConfig]:
    """Return the facts of the images that stand in an environment with isolation checks; adds to `known`."""
    wanted = {pk for pk, places in standing.items() if any(str(place) in isolation for place in places)}
    found = {pk: known[pk] for pk in wanted if pk in known}
    new = sorted(wanted - found.keys())
    for start in range(0, len(new), _FACTS_AT_ONCE):
        found |= image_configs(Image.objects.filter(pk__in=new[start : start + _FACTS_AT_ONCE]).only("pk", "kind"))
    # What is not known yet is asked again each time.
    known |= {pk: facts for pk, facts in found.items() if facts.user is not None and facts.has_setuid is not None}
    return found


def standings() -> Standing:
    """Return how images stand in the bound environments: allowed, rejected, or refused by a rule.

    An image came into an environment by a promotion that succeeded; so did the platforms of an index.
    """
    bound = bound_environments().values("pk")
    found: Standing = defaultdict(dict)
    requests = PromotionRequest.objects.filter(environment__in=bound, state__in=("succeeded", "rejected"))
    rows = requests.order_by("pk").values_list("image_id", "environment_id", "state")
    for image_id, environment_id, state in rows:
        if state == "succeeded":
            found[image_id][environment_id] = ("allowed", "")
        elif environment_id not in found[image_id]:
            found[image_id][environment_id] = ("rejected", "")
    _judge(found)
    _add_platforms(found)
    return found


def _judge(found: Standing) -> None:
    """Take the verdicts of rules into account. An image without a verdict is not allowed where rules enforce."""
    ruled = ruled_environments()
    if not ruled:
        return
    verdicts = {
        (image_id, environment_id): (is_allowed, reason)
        for image_id, environment_id, is_allowed, reason in AdmissionVerdict.objects.filter(
            environment__in=ruled
        ).values_list("image_id", "environment_id", "is_allowed", "reason")
    }
    for image_id, places in found.items():
        for environment_id, (standing, _) in list(places.items()):
            if standing == "allowed" and environment_id in ruled:
                is_allowed, reason = verdicts.get((image_id, environment_id), (False, "The rules were not judged yet."))
                if not is_allowed:
                    places[environment_id] = ("policy", reason)


def _add_platforms(found: Standing) -> None:
    """Give the platforms of each index its standing, unless they stand better by themselves."""
    level = set(found)
    for _ in range(_DEPTH_MAX):
        entries = list(IndexEntry.objects.filter(index__in=level).values_list("index_id", "child_id")) if level else []
        level = set()
        for index_id, child_id in entries:
            for environment_id, standing in found[index_id].items():
                if found[child_id].get(environment_id, ("", ""))[0] != "allowed":
                    found[child_id][environment_id] = standing
                    level.add(child_id)


def _quarantined() -> dict[int, str]:
    """Return {image id: that it is quarantined, without the reason} of all images that live quarantines cover."""
    found: dict[int, str] = {}
    for row in Quarantine.objects.filter(released_at=None).order_by("-pk"):
        for image_id, is_direct in covered_ids(row).items():
            found[image_id] = Cover(row.pk, row.reason, is_direct).short
    return found


def _digests(
    standing: Standing, quarantined: dict[int, str], images: dict[int, ImageConfig]
) -> Iterator[tuple[bytes, bytes]]:
    plain = orjson.dumps(["", {}])
    with connection.cursor() as cursor:
        cursor.execute(_DIGESTS)
        rows = cursor.fetchall()
    for image_id, digest in rows:
        text = plain
        if image_id in standing or image_id in quarantined:
            places = {str(key): list(value) for key, value in standing.get(image_id, {}).items()}
            row: list[Any] = [quarantined.get(image_id, ""), places]
            if image_id in images:
                row.append(snapshot.facts_of_image(images[image_id]))
            text = orjson.dumps(row)
        yield snapshot.key_of_digest(digest), text


def _tags(registries: dict[int, str]) -> Iterator[tuple[bytes, bytes]]:
    with connection.cursor() as cursor:
        cursor.execute(_TAGS, [list(registries)])
        rows = cursor.fetchall()
    for registry_id, repository, tag, digest in rows:
        place = f"{registries[registry_id]}/{repository}"
        yield snapshot.key_of_tag(place, tag), snapshot.key_of_digest(digest)


def decisions_visible_to(actor: User) -> QuerySet[AdmissionDecision]:
    """Return the decisions of clusters and environments whose team `actor` can see."""
    rows = AdmissionDecision.objects.select_related("cluster__team", "environment__team")
    teams = teams_visible_to(actor)
    return rows.filter(cluster__team__in=teams) | rows.filter(environment__team__in=teams)


def open_debts(cluster: Cluster) -> QuerySet[AdmissionDebt]:
    """Return the uses of break-glass in a cluster that nobody has reviewed, the oldest first."""
    return AdmissionDebt.objects.filter(cluster=cluster, reviewed_at=None).order_by("pk")
