"""Make requests due for the next evaluation round."""

from __future__ import annotations

from django.db import transaction
from django.db.models import QuerySet

from lifecycle.promotion.models import PromotionRequest


@transaction.atomic
def judge_soon(rows: QuerySet[PromotionRequest]) -> None:
    """Make these requests due for the next evaluation round, within seconds.

    They are locked in the order of their ids, as the members of a release set are, so that nobody waits in a circle.
    """
    chosen = PromotionRequest.objects.filter(pk__in=rows.order_by().values("pk"))  # a lock allows no joins
    ids = list(chosen.order_by("pk").select_for_update().values_list("pk", flat=True))
    PromotionRequest.objects.filter(pk__in=ids).update(judged_at=None)
