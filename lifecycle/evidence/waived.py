"""Which approved waivers cover the findings of an image, as far as a reader can see them.

A waiver is an exception to one rule of a policy. Whether it makes the finding `waived` is decided in `waiving`, for all
readers alike: one for a single environment leaves it open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import unquote

from django.db.models import Q

from accounts.models import User
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core import clock
from lifecycle.evidence.findings import OPEN_STATES, WAIVED, Finding
from lifecycle.policies.models import Waiver
from lifecycle.policies.queries import waivers_visible_to
from lifecycle.registry.models import Image, RepositoryImage
from lifecycle.registry.platforms import platform_ids


@dataclass(frozen=True, slots=True)
class Waived:
    """One waiver that covers a finding."""

    id: int
    name: str  # WV-3
    rule: str
    environment: str  # "": all
    until: datetime
    advisory: str
    package: str  # with namespace; "": all

    def covers(self, vulnerability: str, package: str) -> bool:
        """Return whether it is about this vulnerability in this package (with its namespace)."""
        return self.advisory == vulnerability and self.package in {"", package}

    def as_json(self) -> dict[str, str]:
        """Return the object of `findings --json`."""
        return {"name": self.name, "rule": self.rule, "environment": self.environment, "until": self.until.isoformat()}


def waivers_of(image: Image, reader: User, *, also: Collection[Image] = ()) -> list[Waived]:
    """Return the approved waivers of single findings that cover an image now, or the index `also` that it is in.

    Those for its digest or its repositories, and those for all repositories of a team. Three queries.
    """
    ids = {image.pk, *platform_ids(image), *(each.pk for each in also)}
    digests = set(Image.objects.filter(pk__in=ids).values_list("digest", flat=True))
    held = RepositoryImage.objects.filter(
        Q(image__in=ids) | Q(image__entries__child__in=ids),
        removed_at=None,
        repository__in=repositories_visible_to(reader),
    ).values_list("repository_id", "repository__source_id", "repository__team_id")
    places = {(source or own, team) for own, source, team in held}
    rows = waivers_visible_to(reader).filter(
        Q(repository__in=[pk for pk, _ in places]) | Q(repository=None, team__in=[team for _, team in places]),
        Q(digest="") | Q(digest__in=digests),
        state=Waiver.State.APPROVED,
        until__gt=clock.now(),
    )
    return [
        Waived(
            row.pk, str(row), row.rule, row.environment.slug if row.environment else "", row.until, row.advisory,
            row.package,
        )
        for row in rows.exclude(advisory="").order_by("pk")
    ]  # fmt: skip


def with_waivers(image: Image, findings: Iterable[Finding], reader: User | None) -> list[Finding]:
    """Return the findings, the open and waived ones with their waivers. Nothing is added without a reader."""
    found = list(findings)
    known = waivers_of(image, reader) if reader is not None else []
    if not known:
        return found
    marked = []
    for finding in found:
        package = _package_of(finding.purl)
        covering = [each for each in known if each.covers(finding.vulnerability, package)]
        is_marked = finding.state in {*OPEN_STATES, WAIVED} and covering
        marked.append(replace(finding, waivers=tuple(each.as_json() for each in covering)) if is_marked else finding)
    return marked


def _package_of(purl: str) -> str:
    """Return the name of a package URL with its namespace: "debian/openssl"."""
    path = purl.partition("?")[0].partition("#")[0]
    plain, at, _ = path.rpartition("@")
    return unquote((plain if at else path).partition("/")[2])
