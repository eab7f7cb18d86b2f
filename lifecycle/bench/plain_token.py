"""What the token bench compares with: a view of Django REST framework over the same rows. Only the bench uses it."""

from __future__ import annotations

import base64
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.urls import path
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.bench.measure_token import issue


class _Token(APIView):
    """Issues a token for Basic credentials."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        credential = base64.b64decode(request.headers["Authorization"].partition(" ")[2]).decode()
        text = issue(credential.partition(":")[2], request.query_params["scope"])
        return Response({"token": text, "access_token": text, "expires_in": 300})


urlpatterns: Final = [path("token", login_not_required(_Token.as_view()))]
