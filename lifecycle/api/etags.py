"""The headers ETag and If-Match, where two people may edit one object."""

from __future__ import annotations

from typing import Final

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from lifecycle.core.errors import StaleVersion, VersionRequired

IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, required=True, description="The ETag of the version that you change."
)


def require_match(request: Request, etag: str) -> None:
    """Raise VersionRequired (428) without the header If-Match, StaleVersion (412) when it names another version."""
    given = request.headers.get("If-Match", "").strip()
    if not given:
        raise VersionRequired("Send the ETag of the version that you change in the header If-Match.")
    if etag not in {part.strip() for part in given.split(",")}:
        raise StaleVersion("It changed since you loaded it. Load it again and repeat your change.")
