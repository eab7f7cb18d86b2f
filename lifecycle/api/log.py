"""`/log/...`: the files of the sealed audit log, as https://c2sp.org/tlog-tiles has them."""

from __future__ import annotations

from typing import Final

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.sealed_log.access import log_file

_KEPT: Final = "private, max-age=31536000, immutable"


@extend_schema(exclude=True)  # the specification of the files is not ours
class LogFileView(APIView):
    def get(self, request: Request, path: str) -> HttpResponse:
        """Return a checkpoint, the key that verifies it, a tile, or a bundle of entries."""
        content, is_final = log_file(caller(request), path)
        is_text = path.endswith(("checkpoint", "key"))
        answer = HttpResponse(
            content, content_type="text/plain; charset=utf-8" if is_text else "application/octet-stream"
        )
        answer["Cache-Control"] = _KEPT if is_final else "no-store"
        return answer
