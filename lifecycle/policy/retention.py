"""Which images of a repository may be deleted, and all reasons: a pure function over facts.

A plan and its deletion both ask `judge`. Unknown facts keep an image.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lifecycle.core.patterns import matches

Key = tuple[int, int]  # repository id, image id

CHILD: Final = "child_of_kept"
REFERRER: Final = "referrer_of_kept"
BASE: Final = "base_of_kept"


@dataclass(frozen=True, slots=True)
class Why:
    """One reason: a stable code, and a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What a team wants to keep. None: this rule is not set. Without `keep_last` and `keep_days`, all tags stay."""

    keep_last: int | None = None  # newest tagged images of each repository
    keep_days: int | None = None  # after the last push or move of a tag
    tags: tuple[str, ...] = ()  # patterns; a tag that matches keeps its image
    untagged_days: int | None = None  # how long an image without tag stays; None: for ever


@dataclass(frozen=True, slots=True)
class DigestFacts:
    """One digest in one repository."""

    repository: int
    image: int
    digest: str
    tags: tuple[str, ...]
    pushed_at: datetime  # the last push, or the last move of one of its tags
    untagged_since: datetime | None  # None while it has a tag
    rules: Rules | None  # those of its repository, else of its team; None: nobody set any
    protections: tuple[Why, ...] = ()  # it is kept for these, whatever the rules say
    indexes: frozenset[int] = frozenset()  # images of the same repository that have it as a platform
    subjects: frozenset[int] = frozenset()  # images of the same repository that it refers to, as a signature does
    bases: frozenset[int] = frozenset()  # images that it is built on, in any repository

    @property
    def key(self) -> Key:
        return self.repository, self.image

    @property
    def short(self) -> str:
        return self.digest[: self.digest.index(":") + 13]

    @property
    def is_part(self) -> bool:
        """Whether it lives and goes with others: a platform or a signature, and no tag names it alone."""
        return bool(self.subjects) or (bool(self.indexes) and not self.tags)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an image is kept, with all reasons for that."""

    is_kept: bool
    reasons: tuple[Why, ...]


def judge(facts: Sequence[DigestFacts], now: datetime) -> dict[Key, Judgement]:
    """Return the judgement on each digest. `facts` has all digests of the repositories that it is about."""
    kept: dict[Key, list[Why]] = {}
    gone: dict[Key, list[Why]] = {}
    newest = _ranks(facts)
    for row in facts:
        keeps, deletes = _by_rules(row, newest.get(row.key), now)
        keeps = [*row.protections, *keeps]
        if keeps:
            kept[row.key] = keeps
        gone[row.key] = deletes
    _spread(facts, kept)
    return {
        row.key: Judgement(True, _once(kept[row.key])) if row.key in kept else Judgement(False, _once(gone[row.key]))
        for row in facts
    }


def _ranks(facts: Iterable[DigestFacts]) -> dict[Key, int]:
    """Return the rank of each tagged digest in its repository: 1 is the newest."""
    by_repository: dict[int, list[DigestFacts]] = defaultdict(list)
    for row in facts:
        if row.tags and not row.is_part:
            by_repository[row.repository].append(row)
    ranks: dict[Key, int] = {}
    for rows in by_repository.values():
        rows.sort(key=lambda row: (row.pushed_at, row.image), reverse=True)
        ranks |= {row.key: rank for rank, row in enumerate(rows, 1)}
    return ranks


def _by_rules(row: DigestFacts, rank: int | None, now: datetime) -> tuple[list[Why], list[Why]]:
    """Return what the rules say: (reasons to keep the image, reasons to delete it)."""
    rules = row.rules
    if rules is None:
        return [Why("no_rule", "No retention rule is set for it.")], []
    if row.is_part:
        whole = "subject" if row.subjects else "index"
        return [], [Why(f"{whole}_deleted", f"Its {whole} is deleted, and it goes with it.")]
    return _tagged(row, rules, rank, now) if row.tags else _untagged(row, rules, now)


def _tagged(row: DigestFacts, rules: Rules, rank: int | None, now: datetime) -> tuple[list[Why], list[Why]]:
    keeps, deletes = [], []
    for tag in row.tags:
        pattern = next((pattern for pattern in rules.tags if matches(pattern, tag)), None)
        if pattern is not None:
            keeps.append(Why("tags", f"Tag {tag} matches {pattern}."))
            break
    if rules.keep_last is None and rules.keep_days is None:
        return [*keeps, Why("no_rule", "No rule deletes images with a tag here.")], []
    if rules.keep_last is not None:
        if rank is not None and rank <= rules.keep_last:
            keeps.append(Why("keep_last", f"One of the last {rules.keep_last} images with a tag."))
        else:
            deletes.append(Why("not_in_last", f"Not one of the last {rules.keep_last} images with a tag."))
    if rules.keep_days is not None:
        if now - row.pushed_at < timedelta(days=rules.keep_days):
            keeps.append(Why("keep_days", f"Pushed or tagged in the last {rules.keep_days} days."))
        else:
            deletes.append(Why("older", f"Last pushed or tagged {_days(now - row.pushed_at)} days ago."))
    return keeps, deletes


def _untagged(row: DigestFacts, rules: Rules, now: datetime) -> tuple[list[Why], list[Why]]:
    if rules.untagged_days is None:
        return [Why("no_rule", "No rule deletes images without a tag here.")], []
    age = now - (row.untagged_since or row.pushed_at)
    if age < timedelta(days=rules.untagged_days):
        return [Why("untagged_days", f"Without a tag for less than {rules.untagged_days} days.")], []
    return [], [Why("untagged", f"Without a tag for {_days(age)} days.")]


def _spread(facts: Sequence[DigestFacts], kept: dict[Key, list[Why]]) -> None:
    """Keep what kept images need: their platforms, what refers to them, and their bases. Adds to `kept`."""
    rows = {row.key: row for row in facts}
    children: dict[Key, list[Key]] = defaultdict(list)
    referrers: dict[Key, list[Key]] = defaultdict(list)
    places: dict[int, list[Key]] = defaultdict(list)
    for row in facts:
        places[row.image].append(row.key)
        for index in row.indexes:
            children[row.repository, index].append(row.key)
        for subject in row.subjects:
            referrers[row.repository, subject].append(row.key)
    waiting = deque(kept)
    while waiting:
        key = waiting.popleft()
        row = rows[key]
        needs = [(child, Why(CHILD, f"A platform of the kept index {row.short}.")) for child in children[key]]
        needs += [(other, Why(REFERRER, f"Refers to the kept image {row.short}.")) for other in referrers[key]]
        for base in row.bases:
            needs += [(place, Why(BASE, f"The kept image {row.short} is built on it.")) for place in places[base]]
        for needed, why in needs:
            if needed not in kept:
                waiting.append(needed)
            kept.setdefault(needed, []).append(why)


def _once(reasons: Iterable[Why]) -> tuple[Why, ...]:
    """Return one reason of each code: a base of 10,000 images does not need to name all."""
    found: dict[str, Why] = {}
    for why in reasons:
        found.setdefault(why.code, why)
    return tuple(found.values())


def _days(age: timedelta) -> int:
    return max(age.days, 0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a plan. The registry stores each blob once, so each counts once."""

    deleted: int  # blobs of the images to delete
    freed: int  # those of them that no other image of the registry has
    by_key: Mapping[Key, int]  # freed bytes; a blob of several images counts for the first of them


def sizes(deleted: Mapping[Key, Mapping[str, int]], used: frozenset[str]) -> Sizes:
    """Return the bytes of a plan. `deleted` has {blob: bytes} of each image, `used` the blobs that stay in use."""
    seen: dict[str, int] = {}
    by_key = {}
    for key, blobs in deleted.items():
        fresh = {blob: size for blob, size in blobs.items() if blob not in seen}
        seen |= fresh
        by_key[key] = sum(size for blob, size in fresh.items() if blob not in used)
    return Sizes(sum(seen.values()), sum(by_key.values()), by_key)
