"""Which clusters a user can see, which binding counts for a namespace, and whose secret a text is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from django.db.models import Exists, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Least, Length, Replace

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.covers import whole_teams
from lifecycle.clusters.models import Cluster, ClusterAgent, ClusterSecret, NamespaceBinding
from lifecycle.core import clock
from lifecycle.core.patterns import matches

_SEE: Final = (Verb.IMAGE_VIEW, Verb.ENVIRONMENT_MANAGE, Verb.RUNTIME_REPORT, Verb.RUNTIME_MANAGE)


def clusters_visible_to(actor: User, *, with_deleted: bool = False) -> QuerySet[Cluster]:
    """Return the clusters of the teams on which, as a whole, `actor` has one of the verbs about clusters.

    A grant for one repository or environment of a team is no view of what else the team runs. The robot of an agent
    sees its own cluster only. Deleted ones are left out, unless they are wanted for history.
    """
    rows = Cluster.objects.select_related("team", "created_by")
    if not actor.is_person:
        bound = ClusterAgent.objects.filter(user=actor.pk)
        rows = rows.filter(Exists(bound.filter(cluster=OuterRef("pk"))) | ~Exists(bound))
    if not with_deleted:
        rows = rows.filter(ended_at=None)
    whole = [whole_teams(actor, verb) for verb in _SEE]
    seen = {team_id for each in whole if each is not None for team_id in each}
    return rows if None in whole else rows.filter(team__in=sorted(seen))


def bindings_of(cluster: Cluster) -> QuerySet[NamespaceBinding]:
    """Return the bindings of a cluster with their environments, the most exact pattern first.

    That is one without `*`, then the one with the most other characters: stars say nothing about a namespace.
    """
    said = Length(Replace("pattern", Value("*"), Value("")))
    has_stars = Least(Length("pattern") - said, Value(1))
    return cluster.bindings.select_related("environment__team").order_by(has_stars, said.desc(), "pattern")


def binding_for(bindings: Iterable[NamespaceBinding], namespace: str) -> NamespaceBinding | None:
    """Return which of `bindings`, the most exact pattern first, counts for a namespace; None without one."""
    return next((row for row in bindings if matches(row.pattern, namespace)), None)


def valid_secrets(kind: str) -> QuerySet[ClusterSecret]:
    """Return the secrets of a kind that are valid now."""
    return ClusterSecret.objects.filter(Q(valid_until=None) | Q(valid_until__gt=clock.now()), kind=kind)


def hash_of(secret: str) -> bytes:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def cluster_with_secret(slug: str, secret: str, kind: str) -> Cluster | None:
    """Return the cluster `slug` if `secret` is a valid secret of this kind for it, else None."""
    row = valid_secrets(kind).filter(sha256=hash_of(secret), cluster__slug=slug).select_related("cluster__team").first()
    return row.cluster if row else None
