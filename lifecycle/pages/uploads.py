"""The size limit of forms with files. Django limits the other fields of a form, but not its files."""

from __future__ import annotations

from typing import IO, Any, Final

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

UPLOAD_MAX: Final = 66 * 1024 * 1024  # bytes of one form: a pen-test report of 64 MiB, plus the multipart overhead


class BoundedUpload(FileUploadHandler):
    """Rejects a form that is too large before any byte is stored. It must come before the handlers that write to disk.

    A body without a length cannot bypass the limit: with WSGI, Django then reads an empty body.
    """

    def handle_raw_input(
        self,
        input_data: IO[bytes],
        META: dict[str, str],  # noqa: N803 -- Django's name
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> tuple[QueryDict, MultiValueDict[str, Any]] | None:
        """Return None, so that Django reads the form; raises RequestDataTooBig (status 413)."""
        if content_length > UPLOAD_MAX:
            raise RequestDataTooBig(f"The form is too large. The limit is {UPLOAD_MAX // 1024 // 1024} MiB.")
        return None

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None
