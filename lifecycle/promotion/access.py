"""Load a promotion request by id: check the right and lock the row. All callers use these functions."""

from __future__ import annotations

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.rights import require
from lifecycle.core.errors import NotFound
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import promotions_visible_to


def promotion_for(actor: User, promotion_id: int) -> PromotionRequest:
    """Return the request if `actor` can see it. Raises NotFound when it is absent or hidden."""
    request = promotions_visible_to(actor).filter(pk=promotion_id).first()
    if request is None:
        raise NotFound("Promotion not found, or you don't have access.")
    return request


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
