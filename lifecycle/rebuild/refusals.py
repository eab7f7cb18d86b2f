"""Reasons why a user cannot change a wave now. Services and pages call the same function."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core.reasons import Reason
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.registry.models import Repository

_NAMES_MAX = 3


def why_not_steer(actor: User, wave: RebuildWave) -> Reason | None:
    """Return why `actor` cannot confirm, cancel or retry the wave. Repositories that `actor` cannot see are not named.

    `actor` needs image.rebuild on every repository in the wave, or on the base's repository when the wave is empty. One
    query for a wave of thousands.
    """
    jobs = RebuildJob.objects.filter(wave=wave)
    touched = Q(pk__in=jobs.values("repository")) | (Q(pk=wave.repository_id) & ~Q(Exists(jobs)))
    visible = repositories_visible_to(actor).filter(pk=OuterRef("pk"))
    allowed = repositories_visible_to(actor, Verb.IMAGE_REBUILD).filter(pk=OuterRef("pk"))
    rows = Repository.objects.filter(touched, ~Exists(allowed)).annotate(is_visible=Exists(visible))
    lacking = list(rows.order_by("name"))
    if not lacking:
        return None
    names = [row.name for row in lacking if row.is_visible]
    if len(names) < len(lacking):
        return Reason("You need image.rebuild on every repository in this wave. Ask an owner of each team to grant it.")
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    listed = ", ".join(names[:_NAMES_MAX])
    return Reason(f"You need image.rebuild on {listed}{more}. Ask an owner of the team to grant it.")
