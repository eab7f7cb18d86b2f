"""The way from an id or a digest in a request to a row: found and allowed, or not found.

Who may see what is `authority.queries`; here is only "this one, if you may".
"""

from __future__ import annotations

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority import rights as authority
from lifecycle.authority.queries import images_visible_to, repositories_visible_to
from lifecycle.core.errors import MalformedDigest, NotFound
from lifecycle.core.types import Digest
from lifecycle.registry.models import Image, Repository

_NO_REPOSITORY = "There is no such repository, or you may not see it."
_NO_IMAGE = "There is no such image, or you may not see it."


def repository_for(actor: User, repository_id: int, verb: Verb = Verb.IMAGE_VIEW) -> Repository:
    """Return the repository if `actor` sees it and holds `verb` over it; raises NotFound, NotPermitted."""
    rows = repositories_visible_to(actor).select_related("team", "registry", "environment", "source")
    return _allowed(actor, rows.filter(pk=repository_id).first(), verb)


def repository_named(actor: User, name: str, verb: Verb = Verb.IMAGE_VIEW) -> Repository:
    """As `repository_for`, by name in the managed registry, else in the one registry that has the name."""
    rows = repositories_visible_to(actor).select_related("team", "registry", "environment", "source")
    found = rows.filter(name=name).order_by("-registry__is_managed", "registry_id").first()
    return _allowed(actor, found, verb)


def lock_repository(actor: User, repository_id: int, verb: Verb) -> Repository:
    """As `repository_for`, with the row locked until the transaction ends."""
    rows = repositories_visible_to(actor).select_related("team").select_for_update(of=("self",))
    return _allowed(actor, rows.filter(pk=repository_id).first(), verb)


def image_for(actor: User, digest: str, verb: Verb = Verb.IMAGE_VIEW) -> Image:
    """Return the image if it lies in a repository over which `actor` holds `verb`.

    Raises NotFound when it is absent, hidden, or no digest at all: one answer.
    """
    try:
        name = Digest.parse(digest).text
    except MalformedDigest:
        raise NotFound(_NO_IMAGE) from None
    found = images_visible_to(actor, verb).filter(digest=name).first()
    if found is None:
        raise NotFound(_NO_IMAGE)
    return found


def image_in(actor: User, repository: Repository, digest: str) -> Image:
    """Return the image of that digest in a repository that was found by this module; raises NotFound."""
    found = Image.objects.filter(
        digest=digest, repository_images__repository=repository, repository_images__removed_at=None
    ).first()
    if found is None or not authority.may(
        actor, Verb.IMAGE_VIEW, repository=repository, environment=repository.environment
    ):
        raise NotFound(_NO_IMAGE)
    return found


def _allowed(actor: User, found: Repository | None, verb: Verb) -> Repository:
    if found is None:
        raise NotFound(_NO_REPOSITORY)
    if verb != Verb.IMAGE_VIEW:
        authority.require(actor, verb, repository=found, environment=found.environment)
    return found
