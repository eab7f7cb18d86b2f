"""Load a promotion request by id: check the right and lock the row. All callers use these functions."""

from __future__ import annotations

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.rights import require
from lifecycle.core.errors import Conflict, NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.core.types import Digest
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import promotions_visible_to
from lifecycle.registry.models import Image, Repository, RepositoryImage


def promotion_for(actor: User, promotion_id: int) -> PromotionRequest:
    """Return the request if `actor` can see it. Raises NotFound when it is absent or hidden."""
    request = promotions_visible_to(actor).filter(pk=promotion_id).first()
    if request is None:
        raise NotFound("Promotion not found, or you don't have access.")
    return request


def promotable_image(repository: Repository, digest: str) -> Image:
    """Return the image, Helm chart or other artifact of a repository that can be promoted on its own.

    Raises MalformedDigest, NotFound.
    """
    member = (
        RepositoryImage.objects.select_related("image")
        .filter(repository=repository, image__digest=Digest.parse(digest).text, is_top_level=True, removed_at=None)
        .first()
    )
    if member is None or not member.image.is_content:
        raise NotFound(f"{repository} has no image {digest[:19]}... that can be promoted on its own.")
    return member.image


def lock_promotion(actor: User, promotion_id: int, verb: Verb | None = None) -> PromotionRequest:
    """Return the request and lock its row until the transaction ends. `actor` must see it and have `verb` on it.

    Raises NotFound when it is absent or hidden, NotPermitted when the right is missing.
    """
    request = promotions_visible_to(actor).select_for_update(of=("self",)).filter(pk=promotion_id).first()
    if request is None:
        raise NotFound("Promotion not found, or you don't have access.")
    if verb is not None:
        require(actor, verb, repository=request.repository, environment=request.environment)
    return request


def why_not_alone(request: PromotionRequest) -> Reason | None:
    """Return why nobody can decide or run the request alone: it is part of a release set."""
    if request.release_set_id is None:
        return None
    name, page = f"RS-{request.release_set_id}", f"/release-sets/{request.release_set_id}/"
    return Reason(f"{request} is part of {name} and is only decided and run with it. Open {page}", Conflict)


def lock_alone(actor: User, promotion_id: int, verb: Verb | None = None) -> PromotionRequest:
    """Return the request as `lock_promotion`, if it is not part of a release set; raises Conflict."""
    request = lock_promotion(actor, promotion_id, verb)
    refuse_if(why_not_alone(request), release_set=request.release_set_id)
    return request


def verb_to_run(request: PromotionRequest) -> Verb:
    """Return the verb that running the request needs."""
    is_glass = request.kind == PromotionRequest.Kind.BREAK_GLASS
    return Verb.PROMOTION_BREAKGLASS if is_glass else Verb.PROMOTION_EXECUTE
