"""Facts about a good image, for tests that spoil one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lifecycle.policy.facts import BaseState, FindingFact, HeldFacts, ImageFacts, PlatformState, Stay

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


PLATFORM = PlatformState(
    "sha256:" + "a" * 64,
    "linux/amd64",
    created_at=ago(3),
    first_seen_at=ago(2),
    user="1000:1000",
    labels={"team": "shop", "org.opencontainers.image.source": "https://example.com/shop"},
    sbom_at=ago(1),
)
GOOD = ImageFacts(
    "sha256:" + "a" * 64,
    NOW,
    environment="production",
    repository="shop/api",
    platforms=(PLATFORM,),
    findings=(),
    held=HeldFacts("sha256:" + "b" * 64, frozenset({("CVE-1", "debian/openssl")})),
    bases=(BaseState("sha256:" + "c" * 64, "base/python:3.13", True),),
    stays=(Stay("staging", ago(2)),),
)


def finding(
    advisory: str = "CVE-1", severity: str = "high", *, fix: str = "3.1", days: float = 10, package: str = ""
) -> FindingFact:
    return FindingFact(advisory, package or "debian/openssl", "deb", severity, fix, ago(days))


def with_findings(*found: FindingFact) -> ImageFacts:
    return replace(GOOD, findings=found)


def with_platform(**changes: object) -> ImageFacts:
    return replace(GOOD, platforms=(replace(PLATFORM, **changes),))
