"""The record of the registry's collector: also when it does not end well."""

from __future__ import annotations

import pytest

from accounts.queries import system_user
from config.embedded.collecting import NotPossible
from lifecycle.audit.models import AuditEvent
from lifecycle.retention.collecting import failures_noted, note_collected

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (NotPossible("The registry did not stop."), "The registry did not stop."),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (NotPossible("x" * 2000), "x" * 1000),
    ],
)
def test_failure_of_the_collector_is_an_event(error, problem):
    with pytest.raises(type(error)), failures_noted(actor=system_user()):
        raise error
    event = AuditEvent.objects.get(action="registry.collection_failed")
    assert (event.details["problem"], event.details["seconds"]) == (problem, 0)


def test_success_is_an_event_and_no_failure():
    with failures_noted(actor=system_user()):
        note_collected(actor=system_user(), blobs=3, freed_bytes=2048, stopped_s=1.0)
    assert AuditEvent.objects.filter(action__startswith="registry.collect").get().action == "registry.collected"
