"""Who can see and pull a repository without a grant, and whether it is archived."""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.db import transaction

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import RepositoryArchived, VisibilityChanged
from lifecycle.authority.access import lock_repository
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.errors import Conflict, Malformed
from lifecycle.core.providers import Question
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.registry.models import Repository

Visibility = Repository.Visibility

# Why the repository cannot be archived now, or None.
blocks_archive: Final[Question[[Repository], Reason | None]] = Question("does a process still need this repository?")


def why_not_visibility(actor: User, repository: Repository, visibility: str) -> Reason | None:
    """Return why `actor` cannot give the repository this visibility now, None when they can."""
    decision = may(actor, Verb.TEAM_MANAGE, repository=repository, environment=repository.environment)
    if not decision:
        return Reason(decision.reason)
    if repository.is_vault:
        return Reason("Withdrawn images are always private.", Conflict)
    if visibility == Visibility.PUBLIC and not settings.ANONYMOUS_ACCESS:
        return Reason(
            "Anonymous access is off on this installation. Choose internal, or ask an operator for ANONYMOUS_ACCESS.",
            Conflict,
        )
    return None


@transaction.atomic
def set_visibility(repository_id: int, visibility: str, *, actor: User) -> Repository:
    """Let others see and pull the images of a repository, or no longer: private, internal or public.

    It takes effect at once for pages and the API; registry tokens that were issued before live up to 5 minutes. Needs
    team.manage. Raises NotFound, NotPermitted, Malformed, or Conflict for public while anonymous access is off.
    """
    repository = lock_repository(actor, repository_id, Verb.TEAM_MANAGE)
    if visibility not in Visibility.values:
        raise Malformed(f"Choose one of: {', '.join(Visibility.values)}.")
    refuse_if(why_not_visibility(actor, repository, visibility))
    if visibility != repository.visibility:
        before, repository.visibility = repository.visibility, visibility
        repository.save(update_fields=["visibility"])
        audit.record(
            Action.REPOSITORY_VISIBILITY_CHANGED, actor=actor, subject=repository, repository=repository,
            details=VisibilityChanged(before=before, after=visibility),
        )  # fmt: skip
    return repository


def why_not_archive(actor: User, repository: Repository, *, is_archived: bool = True) -> Reason | None:
    """Return why `actor` cannot archive the repository, or restore it (not `is_archived`); None when they can."""
    if repository.environment_id is not None:
        return Reason("Only promotions change an environment. Archive the source repository instead.", Malformed)
    if repository.is_vault:
        return Reason("Withdrawn images leave this repository when their quarantine is lifted.", Malformed)
    decision = may(actor, Verb.TEAM_MANAGE, repository=repository)
    if not decision:
        return Reason(decision.reason)
    return blocks_archive.ask(repository) if is_archived and not repository.is_archived else None


@transaction.atomic
def set_archived(repository_id: int, is_archived: bool, *, actor: User) -> Repository:
    """Archive a repository, or restore it. Nobody pushes to an archived one, rebuilds in it, or promotes from it.

    Its images stay, and can be pulled and deleted. Needs team.manage. Raises NotFound, NotPermitted, Malformed,
    or Conflict while a promotion from it is open.
    """
    repository = lock_repository(actor, repository_id, Verb.TEAM_MANAGE)
    refuse_if(why_not_archive(actor, repository, is_archived=is_archived))
    if is_archived != repository.is_archived:
        repository.archived_at = clock.now() if is_archived else None
        repository.save(update_fields=["archived_at"])
        audit.record(
            Action.REPOSITORY_ARCHIVED, actor=actor, subject=repository, repository=repository,
            details=RepositoryArchived(is_archived=is_archived),
        )  # fmt: skip
    return repository
