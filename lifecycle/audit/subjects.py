"""What a reader types to find events, as conditions: everything that pages show as the subject of an event."""

from __future__ import annotations

import re
from typing import Final

from django.db.models import Q
from django.db.models.fields.json import KT
from django.db.models.lookups import Exact

from lifecycle.environments.models import Environment

# Kinds of rows that pages name by letters and a number.
NUMBERED: Final = {
    "promotionrequest": "PR-",
    "rebuildwave": "W-",
    "waiver": "WV-",
    "quarantine": "Q-",
    "releaseset": "RS-",
    "vexstatement": "VEX-",
    "vexdocument": "VD-",
    "teamfix": "FX-",
    "pentestfinding": "PT-",
    "pentestrun": "PTR-",
    "privateadvisory": "PA-",
    "retentionplan": "RP-",
}
_KINDS: Final = {prefix.rstrip("-").lower(): kind for kind, prefix in NUMBERED.items()}
_NUMBER: Final = re.compile(r"#?([A-Za-z]{1,40})[-# ]([0-9]{1,18})")
_HEX: Final = re.compile(r"[0-9a-fA-F]{7,128}")
_DIGEST: Final = re.compile(r"(sha256|sha512):([0-9a-fA-F]{1,128})")


def numbered(kind: str, pk: int) -> str:
    """Return how pages name a row: `PR-13`, `W-2`, else `job 14`."""
    return f"{NUMBERED[kind]}{pk}" if kind in NUMBERED else f"{kind} {pk}"


def about(text: str) -> Q:
    """Return the condition that an event is about `text`.

    `text` is a digest, also a short one as pages show it, a number such as PR-13 or W-2, a repository, an environment,
    both ("shop/api in production", "production/shop/api"), a user, "role <name>" or "team <name>". Every part of the
    condition has an index.
    """
    text = " ".join(text.split()).rstrip("….").strip()
    if found := _DIGEST.fullmatch(text):
        return _digest(f"{found[1]}:{found[2].lower()}")
    condition = _name(text)
    if _HEX.fullmatch(text):
        condition |= _digest(f"sha256:{text.lower()}") | _digest(f"sha512:{text.lower()}")
    if found := _NUMBER.fullmatch(text):
        condition |= Q(subject_kind=_KINDS.get(found[1].lower(), found[1].lower()), subject_id=int(found[2]))
    return condition


def _digest(start: str) -> Q:
    # A range uses the index in any collation. The prefix is checked too, because a collation may sort otherwise.
    return Q(digest__gte=start, digest__lt=f"{start}g", digest__startswith=start)


def _detail(name: str, value: str) -> Q:
    return Q(Exact(KT(f"details__{name}"), value))  # the text, as in the index


def _name(text: str) -> Q:
    kind, _, name = text.partition(" ")
    if kind == "environment" and name:
        return Q(environment=name)
    if kind == "role" and name:
        return _detail("role", name)
    if kind == "team" and name:
        return Q(team__slug=name)
    if " in " in text:
        name, _, environment = text.partition(" in ")
        return about(name) & Q(environment=environment.strip())
    if ", " in text:  # "kim, deployer" and "PR-13, shop/api", as rows show them
        name, _, rest = text.partition(", ")
        return about(name) & (about(rest) | _detail("role", rest))
    condition = Q(repository=text) | Q(environment=text) | _detail("user", text)
    prefix, _, rest = text.partition("/")
    if rest:
        slugs = Environment.objects.filter(prefix=prefix).values_list("slug", flat=True)
        condition |= Q(repository=rest, environment__in={prefix, *slugs})
    return condition
