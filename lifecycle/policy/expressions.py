"""What CEL expressions can name, and the values of these names for one image. Evaluation itself is `policies.cel`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lifecycle.policy.facts import ImageFacts, Need
from lifecycle.policy.types import BaseTrust

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Name -> what it holds, for the reference and the completion in the editor.
NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "image": {
        "digest": "text",
        "repository": "text: shop/api",
        "environment": "text: the environment in question, or empty",
        "missing_platforms": "list of text: platforms that the registry lacks",
    },
    "platforms": {
        "digest": "text",
        "platform": "text: linux/amd64",
        "user": "text of the configuration; absent while unknown",
        "labels": "map of text to text",
        "age_days": "number of days since it was created; absent while unknown",
        "seen_days": "number of days since it was first pushed; absent while unknown",
        "sbom_days": "number of days since its packages were listed; absent while unknown",
        "unjudged": "text: what could not be judged, or empty",
        "distro": "text: debian-12, or empty; absent while unknown",
        "supported_days": "number of days that distro is still supported, negative after; absent while unknown",
    },
    "findings": {
        "advisory": "text: CVE-2026-1",
        "package": "text: debian/openssl",
        "type": "text: deb",
        "severity": "text: critical, high, medium, low, none or unknown",
        "fixed_version": "text, or empty",
        "is_fixable": "true or false",
        "age_days": "number of days since it was first seen here",
        "is_exploited": "true or false: a KEV list names it; absent while no list was read within 7 days",
        "is_ransomware": "true or false: known in ransomware campaigns; absent like is_exploited",
        "is_overdue": "true or false: it is past its due date",
        "epss": "number from 0 to 1: probability of exploitation; absent without a score of the last 7 days",
    },
    "held": {"digest": "text: what the environment holds", "advisories": "list of text"},
    "bases": {
        "digest": "text",
        "name": "text: base/python:3.13",
        "is_current": "true or false; absent while unknown",
        "days_behind": "number",
    },
    "signatures": {
        "source": "text: name of the trusted source",
        "key": "text: fingerprint of the key, or empty",
        "identity": "text, or empty",
        "issuer": "text, or empty",
        "predicate_type": "text; empty for a signature",
        "builder_id": "text, or empty",
        "source_uri": "text, or empty",
    },
    "base_trust": {"status": "text: trusted, untrusted or source; absent while unknown"},
    "files": {
        "kind": "text: setuid, setgid, world_writable, device, private_key, credential, unowned or malware",
        "path": "text: /usr/bin/su",
        "detail": "text: the rule or the signature, or empty",
    },
    "quarantines": {"reason": "text"},
    "licences": {"name": "text: a licence or SPDX expression", "packages": "list of text: some that declare it"},
    "external": {
        "check": "text: site:scanner",
        "passed": "true or false; absent while unknown",
        "hours": "number of hours since the signed answer; absent without one",
        "message": "text",
    },
    "stays": {"environment": "text", "hours": "number", "is_there_now": "true or false"},
}
_NEEDS: Final[Mapping[str, Need]] = {
    "findings": Need.FINDINGS,
    "held": Need.HELD,
    "bases": Need.BASES,
    "stays": Need.STAYS,
    "signatures": Need.SIGNATURES,
    "base_trust": Need.BASE_TRUST,
    "files": Need.CONTENTS,
    "quarantines": Need.QUARANTINES,
    "licences": Need.LICENCES,
    "is_exploited": Need.EXPLOITS,
    "is_ransomware": Need.EXPLOITS,
    "epss": Need.EXPLOITS,
    "external": Need.EXTERNAL,
}
_LIST_DAYS_MAX: Final = 7  # an older list of exploits says nothing about now

_OF_IMAGES: Final = frozenset(
    {"platforms", "missing_platforms", "findings", "held", "bases", "base_trust", "files", "licences"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The value of an expression, or the problem because of which it has none."""

    value: Any = None
    problem: str = ""


def names_of(text: str) -> frozenset[Need]:
    """Return the groups of facts that an expression names."""
    words = set(_WORD.findall(text))
    return frozenset(need for name, need in _NEEDS.items() if name in words)


def is_about_platforms(text: str) -> bool:
    """Return whether an expression names what only images have, so that it says nothing about other artifacts."""
    return not _OF_IMAGES.isdisjoint(_WORD.findall(text))


def values_of(facts: ImageFacts, texts: Iterable[str]) -> dict[str, Any]:
    """Return the values of the names in `texts`. A name whose facts are unknown is absent, so that using it fails."""
    words = {word for text in texts for word in _WORD.findall(text)}
    values: dict[str, Any] = {}
    for name, read in _READ.items():
        if name in words and (value := read(facts)) is not None:
            values[name] = value
    return values


def completions() -> list[str]:
    """Return what the editor offers while somebody types an expression."""
    singular = {
        "findings": "f",
        "platforms": "p",
        "bases": "b",
        "stays": "s",
        "signatures": "g",
        "files": "x",
        "quarantines": "q",
        "licences": "l",
    }
    found = [f"{singular.get(name, name)}.{field}" for name, fields in NAMES.items() for field in fields]
    macros = [f"{name}.{macro}({one}, )" for name, one in singular.items() for macro in ("all", "exists", "filter")]
    return sorted([*NAMES, *found, *macros, "size()", "has()"])


def _image(facts: ImageFacts) -> dict[str, Any]:
    return {
        "digest": facts.digest,
        "repository": facts.repository,
        "environment": facts.environment,
        "missing_platforms": list(facts.missing_platforms),
    }


def _platforms(facts: ImageFacts) -> list[dict[str, Any]] | None:
    found = []
    for platform in facts.platforms:
        moments = {
            "age_days": platform.created_at,
            "seen_days": platform.first_seen_at,
            "sbom_days": platform.sbom_at,
        }
        record: dict[str, Any] = {
            "digest": platform.digest,
            "platform": platform.platform,
            "unjudged": platform.unjudged,
        }
        if platform.user is not None:
            record |= {"user": platform.user, "labels": {k: str(v) for k, v in platform.labels.items()}}
        record |= {name: facts.days_since(moment) for name, moment in moments.items() if moment is not None}
        if platform.distro is not None:
            record["distro"] = platform.distro
        if platform.supported_until is not None:
            record["supported_days"] = (platform.supported_until - facts.now.date()).days
        found.append(record)
    return found or None


def _findings(facts: ImageFacts) -> list[dict[str, Any]] | None:
    if facts.findings is None or not all(platform.is_matched for platform in facts.platforms):
        return None
    knows_exploits, knows_scores = _is_fresh(facts, facts.kev_read_at), _is_fresh(facts, facts.epss_scored_at)
    records = []
    for found in facts.findings:
        record: dict[str, Any] = {
            "advisory": found.advisory,
            "package": found.package,
            "type": found.type,
            "severity": found.severity,
            "fixed_version": found.fixed_version,
            "is_fixable": found.is_fixable,
            "age_days": facts.days_since(found.first_seen),
        }
        if knows_exploits:
            record |= {"is_exploited": found.exploited_on is not None, "is_ransomware": found.is_ransomware}
        if facts.due_lists is not None:
            record["is_overdue"] = found.due_at is not None and found.due_at < facts.now
        if knows_scores and found.epss is not None:
            record["epss"] = found.epss
        records.append(record)
    return records


def _is_fresh(facts: ImageFacts, moment: datetime | None) -> bool:
    return moment is not None and facts.days_since(moment) <= _LIST_DAYS_MAX


def _held(facts: ImageFacts) -> dict[str, Any] | None:
    if facts.held is None:
        return {"digest": "", "advisories": []}
    if facts.held.findings is None:
        return None
    return {"digest": facts.held.digest, "advisories": sorted({advisory for advisory, _ in facts.held.findings})}


def _bases(facts: ImageFacts) -> list[dict[str, Any]] | None:
    found = []
    for base in facts.bases:
        record: dict[str, Any] = {"digest": base.digest, "name": base.name}
        if base.is_current is not None:
            behind = facts.days_since(base.behind_since) if base.behind_since else 0
            record |= {"is_current": base.is_current, "days_behind": behind}
        found.append(record)
    return found or None


def _stays(facts: ImageFacts) -> list[dict[str, Any]]:
    return [
        {
            "environment": stay.environment,
            "hours": int(((stay.until or facts.now) - stay.since).total_seconds() // 3600),
            "is_there_now": stay.until is None,
        }
        for stay in facts.stays
    ]


def _signatures(facts: ImageFacts) -> list[dict[str, Any]] | None:
    if facts.signatures is None or not facts.signatures.is_known:
        return None
    return [
        {
            "source": fact.source,
            "key": fact.key_fingerprint,
            "identity": fact.identity,
            "issuer": fact.issuer,
            "predicate_type": fact.predicate_type,
            "builder_id": fact.builder_id,
            "source_uri": fact.source_uri,
        }
        for fact in facts.signatures.verified
    ]


def _base_trust(facts: ImageFacts) -> dict[str, Any] | None:
    if facts.base_trust is None or facts.base_trust.status is BaseTrust.UNKNOWN:
        return None
    return {"status": facts.base_trust.status.value}


def _files(facts: ImageFacts) -> list[dict[str, Any]] | None:
    """Return the problems of files; None while the check is not complete, so that no expression passes by it."""
    if facts.contents is None or facts.contents.problem or facts.contents.cut:
        return None
    return [{"kind": file.kind, "path": file.path, "detail": file.detail} for file in facts.contents.found]


def _quarantines(facts: ImageFacts) -> list[dict[str, Any]] | None:
    return None if facts.quarantines is None else [{"reason": text} for text in facts.quarantines]


def _licences(facts: ImageFacts) -> list[dict[str, Any]] | None:
    if facts.licences is None:
        return None
    return [{"name": name, "packages": sorted(names)} for name, names in sorted(facts.licences.packages.items())]


def _external(facts: ImageFacts) -> list[dict[str, Any]] | None:
    if facts.external is None:
        return None
    found = []
    for fact in facts.external.values():
        record: dict[str, Any] = {"check": fact.check, "message": fact.message}
        if fact.at is not None:
            record["hours"] = int(facts.age(fact.at).total_seconds() // 3600)
            record |= {"passed": fact.has_passed} if fact.has_passed is not None else {}
        found.append(record)
    return found


_READ: Final = {
    "image": _image,
    "platforms": _platforms,
    "findings": _findings,
    "held": _held,
    "bases": _bases,
    "stays": _stays,
    "signatures": _signatures,
    "base_trust": _base_trust,
    "files": _files,
    "quarantines": _quarantines,
    "licences": _licences,
    "external": _external,
}
