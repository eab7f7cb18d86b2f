"""How much a form with files may send. Django counts the other fields of a form, but not its files."""

from __future__ import annotations

from typing import IO, Any, Final

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

UPLOAD_MAX: Final = 48 * 1024 * 1024  # bytes of one form: a recipe with its whole context, and what holds it together


class BoundedUpload(FileUploadHandler):
    """Refuses a form before a byte of it is kept: it stands before the handlers that write to disk.

    A body without a length is none: WSGI gives Django nothing to read then.
    """

    def handle_raw_input(
        self,
        input_data: IO[bytes],
        META: dict[str, str],  # noqa: N803 -- Django's name
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> tuple[QueryDict, MultiValueDict[str, Any]] | None:
        """Return None, so that the form is read; raises RequestDataTooBig (answered with 413)."""
        if content_length > UPLOAD_MAX:
            raise RequestDataTooBig(f"A form may send at most {UPLOAD_MAX // 1024 // 1024} MiB.")
        return None

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None
