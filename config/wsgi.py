"""One port for all: registry tokens go to a small callable of their own, everything else to Django."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_django = get_wsgi_application()

from lifecycle.tokens import endpoint as token_endpoint  # noqa: E402 -- needs the app registry

# What is loaded by now stays for good. The collector would walk through all of it in the middle of some request, which
# then took 70 ms longer than its neighbours.
_ = get_resolver().url_patterns  # imports every view
gc.collect()
gc.freeze()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request."""
    if environ.get("PATH_INFO") == "/auth/token":
        return token_endpoint.application(environ, start_response)
    return _django(environ, start_response)
