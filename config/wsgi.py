"""The WSGI application on one port: the endpoints of tokens, admission, and Django for all other URLs."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_django = get_wsgi_application()

from django.conf import settings  # noqa: E402 -- configured by now

from config.embedded.web import THREADS  # noqa: E402 -- as above
from lifecycle.admission.server import PREFIX, Application  # noqa: E402 -- as above
from lifecycle.keyless import endpoint as exchange_endpoint  # noqa: E402 -- as below
from lifecycle.tokens import endpoint as token_endpoint  # noqa: E402 -- needs the app registry

_reviews = Application(Path(settings.ADMISSION_FOLDER), settings.PUBLIC_URL, threads=THREADS)

# The objects loaded so far are permanent. Without the freeze, the garbage collector scans them during some request,
# which then takes 70 ms longer than others.
_ = get_resolver().url_patterns  # imports every view
gc.collect()
gc.freeze()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Handle one request."""
    if environ.get("PATH_INFO") == "/auth/token":
        return token_endpoint.application(environ, start_response)
    if environ.get("PATH_INFO") == exchange_endpoint.PATH:
        return exchange_endpoint.application(environ, start_response)
    if environ.get("PATH_INFO", "").startswith(PREFIX):
        return _reviews(environ, start_response)
    return _django(environ, start_response)
