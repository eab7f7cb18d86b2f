"""Reasons why a user cannot change a wave now. Services and pages call the same function."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core.reasons import Reason
from lifecycle.quarantine.queries import why_quarantined
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.rebuild.queries import builder_permit_of, repositories_with_builder
from lifecycle.rebuild.types import BuilderOff
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


def why_not_build(repository: Repository) -> Reason | None:
    """Return why no recipe of `repository` can be run: the embedded builder is off for it."""
    if builder_permit_of(repository) is not None:
        return None
    return Reason(builder_is_off(repository.name, who_turns_builder_on()), BuilderOff)


def why_not_confirm(actor: User, wave: RebuildWave) -> Reason | None:
    """Return why `actor` cannot confirm the wave now: a missing permission, or images that no builder can build.

    Repositories that `actor` cannot see are not named. A fixed number of queries.
    """
    if reason := why_not_steer(actor, wave) or why_quarantined(wave.new_base):
        return reason
    jobs = RebuildJob.objects.filter(wave=wave, method=RebuildJob.Method.BUILD, state=RebuildJob.State.WAITING)
    to_build = set(jobs.values_list("repository", flat=True))
    if not (off := to_build - repositories_with_builder(to_build)):
        return None
    visible = repositories_visible_to(actor).filter(pk__in=off).order_by("name")
    names = list(visible.values_list("name", flat=True)[: _NAMES_MAX + 1])
    listed = ", ".join(names[:_NAMES_MAX]) + (" and more" if len(names) > _NAMES_MAX else "")
    sentence = builder_is_off(listed or "a repository in this wave", who_turns_builder_on())
    return Reason(f"{sentence} Or plan again: a new plan skips these images.", BuilderOff)


def builder_is_off(repositories: str, who: str) -> str:
    """Return the sentence that the embedded builder is off for `repositories`; `who` is of `who_turns_builder_on`."""
    return f"The embedded builder is off for {repositories}. {who}"


def who_turns_builder_on() -> str:
    """Return the sentence that says who can turn the embedded builder on, with up to three names."""
    people = User.objects.filter(is_superuser=True, is_active=True, kind=User.Kind.PERSON).order_by("username")
    names = ", ".join(people.values_list("username", flat=True)[:_NAMES_MAX])
    return f"Ask an admin{f' ({names})' if names else ''} to turn it on."
