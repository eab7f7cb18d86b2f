"""Errors of services on the form that caused them, so that a user loses nothing of what they typed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.forms import Form

from lifecycle.core.errors import Conflict, Malformed, PolicyBlocked, StaleVersion, WrongPassword


@contextmanager
def errors_shown_on(form: Form, field: str | None = None) -> Iterator[None]:
    """Add an error of the block to `form`, at `field` if given. `form.is_valid()` then returns False.

    Catches the errors that other input can mend: Malformed, Conflict, StaleVersion, WrongPassword, and PolicyBlocked
    with its reasons. NotFound and NotPermitted pass:
    they have a page of their own, and the audit log records a refused access there.
    """
    try:
        yield
    except WrongPassword as error:
        form.add_error("password", error.message)
    except (Malformed, Conflict, PolicyBlocked, StaleVersion) as error:
        form.add_error(field, error.message)
        for reason in error.details.get("reasons", ()):
            form.add_error(field, str(reason))
