"""`ETag` and `If-Match` of objects that two users may edit: the revision of the row."""

from __future__ import annotations

import re
from typing import Final

from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.core.errors import Malformed, VersionRequired

_ETAG: Final = re.compile(r'(?:W/)?"([0-9]{1,9})"')


def with_etag(response: Response, revision: int) -> Response:
    """Return the response with the `ETag` of a revision."""
    response["ETag"] = f'"{revision}"'
    return response


def revision_wanted(request: Request) -> int | None:
    """Return the revision in `If-Match`, or None without one or for `*`; raises Malformed for anything else."""
    header = request.headers.get("If-Match", "").strip()
    if header in {"", "*"}:
        return None
    match = _ETAG.fullmatch(header)
    if match is None:
        raise Malformed('Give the ETag of the object in If-Match, for example "3".')
    return int(match[1])


def revision_required(request: Request) -> int | None:
    """Return the revision in `If-Match`, None for `*`; raises VersionRequired (428) without the header, Malformed."""
    if not request.headers.get("If-Match", "").strip():
        raise VersionRequired("Send the ETag of the version that you change in the header If-Match.")
    return revision_wanted(request)
