"""Download of a whole log as a text file, for jobs and for the images of a wave."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from lifecycle.jobs.models import JobLogLine


def raw_log_answer(lines: QuerySet[JobLogLine], *, filename: str) -> StreamingHttpResponse:
    """Return the lines as a plain text download, in the given order: the time in UTC, then the text."""

    def text() -> Iterator[str]:
        for at, line in lines.values_list("at", "text").iterator(chunk_size=1000):
            yield f"{at:%Y-%m-%dT%H:%M:%SZ} {line}\n"

    response = StreamingHttpResponse(text(), content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response
