"""What the admission bench compares with: a Django view that decides by asking the database. Only benches use it."""

from __future__ import annotations

import json
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from lifecycle.clusters.models import Cluster
from lifecycle.clusters.queries import binding_for, bindings_of
from lifecycle.promotion.models import PromotionRequest


@csrf_exempt
@login_not_required
def review(request: HttpRequest) -> JsonResponse:
    """Answer a review with queries for cluster, bindings and promotion."""
    asked = json.loads(request.body)["request"]
    cluster = Cluster.objects.get(slug="bench")
    binding = binding_for(bindings_of(cluster), asked["namespace"])
    digests = [row["image"].partition("@")[2] for row in asked["object"]["spec"]["containers"]]
    rows = PromotionRequest.objects.filter(image__digest__in=digests, state="succeeded")
    found = rows.filter(environment=binding.environment if binding else None).count()
    response = {"uid": asked["uid"], "allowed": found >= len(digests)}
    document = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    return JsonResponse(document, json_dumps_params={"separators": (",", ":")})


urlpatterns: Final = [path("review", review)]
