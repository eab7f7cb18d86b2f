"""What all tests of the sealed log use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from accounts.models import User
from accounts.queries import system_user
from lifecycle.audit import services as audit
from lifecycle.audit.actions import Action
from lifecycle.audit.details import UserDetails
from lifecycle.audit.models import AuditEvent
from tests.integration.sealed_log.sealing_log import Log, run_as_owner


@pytest.fixture
def log(tmp_path: Path, transactional_db: None) -> Log:
    return Log(tmp_path)


@pytest.fixture
def as_owner() -> Callable[[Callable[[], Any]], Any]:
    return run_as_owner


@pytest.fixture
def write() -> Callable[..., list[AuditEvent]]:
    """Record events about an account; returns them."""

    def record(count: int = 1, *, actor: User | None = None, reason: str = "", about: str = "unknown") -> list[Any]:
        with transaction.atomic():
            return [
                audit.record(
                    Action.SESSION_REFUSED,
                    actor=actor or system_user(),
                    reason=reason,
                    details=UserDetails(user=about),
                )
                for _ in range(count)
            ]

    return record
