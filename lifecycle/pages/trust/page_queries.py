"""Queries of the pages about trusted sources and signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.authority.rights import may
from lifecycle.policy.types import BaseFact
from lifecycle.registry.models import Image, Repository
from lifecycle.registry.queries import images_held_in
from lifecycle.trust.models import Signature, TrustCheck
from lifecycle.trust.queries import base_trust, live_sources, problem_seen, signatures_of

_SHOWN_MAX = 100  # signatures of one image


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature on the image page."""

    row: Signature
    sources: tuple[str, ...]  # live sources of the team that trust its signer
    is_of_index: bool

    @property
    def counts(self) -> bool:
        return self.row.state == Signature.State.VERIFIED and bool(self.sources)


def signatures_shown(user: User, repository: Repository, image: Image, top: Image) -> dict[str, Any]:
    """Return the context of the tab: the signatures, when they were read, and whether the bases are trusted.

    Sources for all teams and those of the repository's team count. A base that the reader cannot see has no name.
    """
    live = dict(live_sources(repository.team_id).values_list("pk", "name"))
    lines = []
    visible = repositories_visible_to(user)
    for row in signatures_of(image).filter(repository__in=visible)[:_SHOWN_MAX]:
        names = tuple(sorted({live[signer.source_id] for signer in row.signers.all() if signer.source_id in live}))
        lines.append(SignatureLine(row, names, row.image_id != image.pk))
    facts = base_trust([image.pk], team_id=repository.team_id)[image.pk]
    held = images_held_in(visible)
    names_seen = Image.objects.filter(digest__in=[base.digest for base in facts.bases], pk__in=held)
    seen = set(names_seen.values_list("digest", flat=True))
    bases: list[BaseFact | None] = [base if base.digest in seen else None for base in facts.bases]
    check = TrustCheck.objects.filter(image=top).first()
    return {
        "lines": lines,
        "check": check,
        "problem": problem_seen(check, visible),
        "trust": facts,
        "trust_bases": bases,
        "may_check": may(user, Verb.IMAGE_SCAN, repository=repository),
    }
