"""Actions on clusters. Each function checks, locks, changes and audits in one transaction."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle import events
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import Details
from lifecycle.audit.details_of_clusters import ClusterBindings, ClusterChanged, ClusterCreated, ClusterSecretMade
from lifecycle.authority.queries import environments_visible_to
from lifecycle.authority.rights import may
from lifecycle.clusters.access import cluster_for, why_not_manage
from lifecycle.clusters.constants import (
    BINDINGS_MAX,
    CLUSTERS_MAX,
    HOSTS_MAX,
    OVERLAP,
    SECRETS_MAX,
    STALE_MAX_S,
    STALE_MIN_S,
    SUBJECT_MAX,
    SUBJECTS_MAX,
)
from lifecycle.clusters.enforcement import carry_enforcement, note_enforcement
from lifecycle.clusters.models import Cluster, ClusterSecret, Mode, NamespaceBinding
from lifecycle.clusters.queries import bindings_of, hash_of, valid_secrets
from lifecycle.clusters.types import BindingWish
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed, NotPermitted, StaleVersion
from lifecycle.core.reasons import refuse_if
from lifecycle.environments.models import Environment

SETTINGS: Final = ("mode", "tags", "unbound", "breakglass_subjects", "stale_after_s", "mutate")
_NO_SETTINGS: Final = (
    "team", "created_by", "enforced_at", "unbound_enforced_at", "bound_at", "authority_waits_until", "ended_at",
)  # fmt: skip
_CHOICES: Final = {"mode": Mode, "tags": Cluster.Tags, "unbound": Cluster.Unbound, "kind": Cluster.Kind}
_SUBJECT: Final = re.compile(rf"(user|group):[^\s\0].{{0,{SUBJECT_MAX - 8}}}")
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?(:[0-9]{1,5})?")
_ALPHABET: Final = string.ascii_letters + string.digits
_RANDOM_LENGTH: Final = 34  # characters of base 62: 202 bits


@transaction.atomic
def create_cluster(team: Team, slug: str, *, actor: User, kind: str = "kubernetes", **settings: Any) -> Cluster:
    """Add a cluster to a team (environment.manage). Raises NotPermitted, Malformed, or Conflict for a used name."""
    refuse_if(why_not_manage(actor, team))
    cluster = Cluster(team=team, slug=slug.strip(), kind=kind, created_by=actor)
    _set(cluster, {"kind": kind, **settings})
    note_enforcement(cluster, clock.now())
    Team.objects.select_for_update(no_key=True).get(pk=team.pk)  # two at once would both be the last
    if team.clusters.filter(ended_at=None).count() >= CLUSTERS_MAX:
        raise Conflict(f"The team has {CLUSTERS_MAX} clusters already.")
    try:
        with transaction.atomic():
            cluster.save(force_insert=True)
    except IntegrityError:
        raise Conflict("This name is already used. Choose another name.") from None
    details = ClusterCreated(slug=cluster.slug, kind=cluster.kind, settings=_as_text(cluster))
    _record(Action.CLUSTER_CREATED, cluster, actor, details=details)
    return cluster


@transaction.atomic
def change_cluster(slug: str, *, actor: User, revision: int | None = None, **settings: Any) -> Cluster:
    """Change settings of a cluster. With `revision`, only if nobody changed it since.

    Raises NotFound, NotPermitted, StaleVersion, Malformed.
    """
    cluster = _lock(slug, actor, revision)
    before = _as_text(cluster)
    _set(cluster, settings)
    after = _as_text(cluster)
    changed = [name for name in SETTINGS if before[name] != after[name]]
    if not changed:
        return cluster
    cluster.revision += 1
    note_enforcement(cluster, clock.now(), cluster.bindings.all())
    cluster.save(update_fields=[*changed, "revision", "enforced_at", "unbound_enforced_at"])
    details = ClusterChanged(
        slug=cluster.slug,
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
    )
    _record(Action.CLUSTER_CHANGED, cluster, actor, details=details)
    return cluster


@transaction.atomic
def set_bindings(slug: str, wishes: Sequence[BindingWish], *, actor: User, revision: int | None = None) -> Cluster:
    """Replace all bindings of a cluster; return it.

    Who binds an environment that was not bound needs environment.manage there too, because its images may then run in
    this cluster. Raises NotFound, NotPermitted, StaleVersion, Malformed.
    """
    cluster = _lock(slug, actor, revision)
    if len(wishes) > BINDINGS_MAX:
        raise Malformed(f"A cluster has at most {BINDINGS_MAX} bindings.")
    before = list(bindings_of(cluster))
    bound = {row.environment_id: row.environment for row in before}
    rows = [_binding(cluster, wish, actor, bound.values()) for wish in wishes]
    if len({row.pattern for row in rows}) < len(rows):
        raise Malformed("Each pattern can be bound only once.", field="bindings")
    for environment in {row.environment for row in rows if row.environment_id not in bound}:
        decision = may(actor, Verb.ENVIRONMENT_MANAGE, team=environment.team, environment=environment)
        if not decision:
            raise NotPermitted(decision.reason, verb=Verb.ENVIRONMENT_MANAGE.value)
    was, will = ([_words(row) for row in some] for some in (before, rows))
    if sorted(was) == sorted(will):
        return cluster
    cluster.revision += 1
    cluster.bound_at = clock.now()
    carry_enforcement(cluster, before, rows, cluster.bound_at)
    cluster.bindings.all().delete()
    NamespaceBinding.objects.bulk_create(rows)
    cluster.save(update_fields=["revision", "bound_at", "unbound_enforced_at"])
    details = ClusterBindings(slug=cluster.slug, before=tuple(was), after=tuple(sorted(will)))
    _record(Action.CLUSTER_BINDINGS_CHANGED, cluster, actor, details=details)
    return cluster


@transaction.atomic
def create_secret(slug: str, kind: str, *, actor: User) -> tuple[ClusterSecret, str]:
    """Make a new secret of a cluster; return (row, text). The text cannot be read again.

    The previous secret of its kind stays valid for 24 hours, so that the cluster can be changed meanwhile. Raises
    NotFound, NotPermitted, Malformed, or Conflict when too many are valid.
    """
    cluster = _lock(slug, actor, None)
    if kind not in ClusterSecret.Kind.values:
        raise Malformed(f"Choose one of {', '.join(ClusterSecret.Kind.values)}.", field="kind")
    if valid_secrets(kind).filter(cluster=cluster).count() >= SECRETS_MAX:
        raise Conflict(f"{SECRETS_MAX} secrets of this kind are valid. Wait until the oldest has ended.")
    cluster.secrets.filter(kind=kind, valid_until=None).update(valid_until=clock.now() + OVERLAP)
    text = f"gdc_{kind[:3]}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    row = ClusterSecret.objects.create(cluster=cluster, kind=kind, sha256=hash_of(text), created_by=actor)
    _record(Action.CLUSTER_SECRET_CREATED, cluster, actor, details=ClusterSecretMade(slug=cluster.slug, kind=kind))
    return row, text


def _lock(slug: str, actor: User, revision: int | None) -> Cluster:
    cluster = cluster_for(actor, slug, locked=True)
    refuse_if(why_not_manage(actor, cluster.team))
    if revision is not None and revision != cluster.revision:
        raise StaleVersion("Another user changed this cluster. Load it again, then repeat your change.")
    return cluster


def _record(action: Action, cluster: Cluster, actor: User, *, details: Details) -> None:
    audit.record(action, actor=actor, subject=cluster, team=cluster.team, details=details)
    events.publish(events.ClusterChanged(cluster.pk))


def _set(cluster: Cluster, settings: dict[str, Any]) -> None:
    """Set and check settings of a cluster, without saving it. Raises Malformed with the field."""
    unknown = sorted(set(settings) - {*SETTINGS, "kind"})
    if unknown:
        raise Malformed(f"Unknown settings: {', '.join(unknown)}.")
    for name, value in settings.items():
        if name in _CHOICES and value not in _CHOICES[name].values:
            raise Malformed(f"Choose one of {', '.join(_CHOICES[name].values)}.", field=name)
        setattr(cluster, name, _subjects(value) if name == "breakglass_subjects" else value)
    if not STALE_MIN_S <= cluster.stale_after_s <= STALE_MAX_S:
        raise Malformed(f"Enter {STALE_MIN_S} to {STALE_MAX_S:,} seconds.", field="stale_after_s")
    try:
        cluster.clean_fields(exclude=_NO_SETTINGS)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise Malformed(" ".join(messages), field=field) from None
    enforces = cluster.mode == Mode.ENFORCE
    cluster.enforced_at = (cluster.enforced_at or clock.now()) if enforces else None


def _subjects(given: Iterable[str]) -> list[str]:
    """Return the checked subjects, each once; raises Malformed."""
    subjects = list(dict.fromkeys(text.strip() for text in given))
    if len(subjects) > SUBJECTS_MAX:
        raise Malformed(f"Enter at most {SUBJECTS_MAX} subjects.", field="breakglass_subjects")
    for subject in subjects:
        if not _SUBJECT.fullmatch(subject):
            raise Malformed(
                f"{subject[:80]!r} is not a subject. Write user:NAME or group:NAME, as the API server names them.",
                field="breakglass_subjects",
            )
    return subjects


def _as_text(cluster: Cluster) -> dict[str, str]:
    words = {name: str(getattr(cluster, name)) for name in SETTINGS}
    return words | {"breakglass_subjects": ", ".join(cluster.breakglass_subjects)}


def _binding(
    cluster: Cluster, wish: BindingWish, actor: User, bound: Iterable[Environment]
) -> NamespaceBinding:  # fmt: skip
    """Return an unsaved binding; raises Malformed. An environment that is bound already can stay, seen or not."""
    team, _, slug = wish.environment.strip().rpartition("/")
    team = team or cluster.team.slug
    environment = next((row for row in bound if (row.team.slug, row.slug) == (team, slug)), None)
    if environment is None:
        environment = environments_visible_to(actor).filter(team__slug=team, slug=slug).first()
    if environment is None:
        raise Malformed(f"There is no environment {wish.environment[:120]} that you can see.", field="bindings")
    hosts = list(dict.fromkeys(host.strip().lower() for host in wish.allowed_hosts))
    if len(hosts) > HOSTS_MAX:
        raise Malformed(f"A binding allows at most {HOSTS_MAX} hosts.", field="bindings")
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise Malformed(
                f"{host[:80]!r} is not a host. Write host or host:port, without a scheme.", field="bindings"
            )
    row = NamespaceBinding(
        cluster=cluster, pattern=wish.pattern.strip(), environment=environment, mode=wish.mode, allowed_hosts=hosts
    )
    try:
        row.clean_fields(exclude=["cluster", "environment", "enforced_at"])
    except ValidationError as error:
        name, messages = next(iter(error.message_dict.items()))
        raise Malformed(f"{name} {str(getattr(row, name))[:80]!r}: {' '.join(messages)}", field="bindings") from None
    return row


def _words(row: NamespaceBinding) -> str:
    hosts = f", also from {' '.join(row.allowed_hosts)}" if row.allowed_hosts else ""
    return f"{row.pattern}: {row.environment.team.slug}/{row.environment.slug} {row.mode or 'as cluster'}{hosts}"
