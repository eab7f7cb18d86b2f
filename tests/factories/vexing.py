"""Decisions about findings and VEX documents for tests."""

from __future__ import annotations

import json
from typing import Any

from accounts.models import Team, User
from lifecycle.core import clock
from lifecycle.registry.models import Repository
from lifecycle.vex import documents, services
from lifecycle.vex.models import VexDocument, VexFeed, VexStatement


def decision(
    repository: Repository, *, by: User, vulnerability: str = "CVE-2026-1", approver: User | None = None, **more: Any
) -> VexStatement:
    """Decide that the images of a repository are not affected; approved when there is an approver."""
    said = {"status": "not_affected", "justification": "component_not_present", "scope": "repository",
            "reason": "checked"} | more  # fmt: skip
    made = services.decide(vulnerability, actor=by, repository=repository, **said)
    return services.approve(made.pk, actor=approver) if approver else made


def openvex(*statements: dict[str, Any], name: str = "https://vendor.example/1", **more: Any) -> bytes:
    """Return an OpenVEX document."""
    head = {"@context": "https://openvex.dev/ns/v0.2.0", "@id": name, "author": "Vendor", "version": 1,
            "timestamp": "2026-01-02T03:04:05Z"}  # fmt: skip
    return json.dumps(head | {"statements": list(statements)} | more).encode()


def said(vulnerability: str, *products: Any, status: str = "fixed", **more: Any) -> dict[str, Any]:
    """Return one statement of OpenVEX."""
    named = [{"@id": each} if isinstance(each, str) else each for each in products]
    return {"vulnerability": {"name": vulnerability}, "products": named, "status": status} | more


def bring_document(
    team: Team | None, *, by: User, content: bytes = b"", name: str = "https://vendor.example/1"
) -> VexDocument:
    """Send a document about one package."""
    content = content or openvex(said("CVE-2026-1", "pkg:deb/debian/tar"), name=name)
    return documents.import_document(content, actor=by, team=team)


def vex_feed(team: Team | None, *, by: User, name: str = "vendor", trusted_by: User | None = None) -> VexFeed:
    """Return a feed that nobody has run."""
    return VexFeed.objects.create(
        name=name, team=team, location="https://vendor.example/vex/", added_by=by, trusted_by=trusted_by,
        trusted_at=clock.now() if trusted_by else None,
    )  # fmt: skip
