"""The only way from an id in a request to a promotion's row, with the right checked and the row locked."""

from __future__ import annotations

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.rights import require
from lifecycle.core.errors import NotFound
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import promotions_visible_to


def promotion_for(actor: User, promotion_id: int) -> PromotionRequest:
    """Return the request if `actor` may see it; raises NotFound for absent and hidden alike."""
    request = promotions_visible_to(actor).filter(pk=promotion_id).first()
    if request is None:
        raise NotFound("No such promotion.")
    return request


def lock_promotion(actor: User, promotion_id: int, verb: Verb | None = None) -> PromotionRequest:
    """Return the request, its row locked until the transaction ends, if `actor` sees it and holds `verb` there.

    Raises NotFound when it is absent or hidden, NotPermitted when the right is missing.
    """
    request = promotions_visible_to(actor).select_for_update(of=("self",)).filter(pk=promotion_id).first()
    if request is None:
        raise NotFound("No such promotion.")
    if verb is not None:
        require(actor, verb, repository=request.repository, environment=request.environment)
    return request
