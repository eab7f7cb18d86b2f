"""The checks of an export. Each problem names the log and the index of the entry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gravingdock_verify.exports import BadExport, Export, Line
from gravingdock_verify.notes import BadNote, Checkpoint, Key, number_of
from gravingdock_verify.texts import FIELDS, NO_SALT, SALT_BYTES, canonical, text_hash
from gravingdock_verify.trees import BadProof, Roots, hash_of_entry, root_by_inclusion, roots_by_consistency

OPEN = ("event", "at", "action", "outcome", "actor", "team", "subject", "digest", "repository", "environment")


@dataclass(frozen=True)
class Problem:
    """What is wrong, and with which entry: None when it is about the whole log."""

    origin: str
    index: int | None
    text: str

    def __str__(self) -> str:
        place = self.origin if self.index is None else f"{self.origin}, entry {self.index}"
        return f"{place}: {self.text}"


@dataclass(frozen=True)
class Expected:
    """What the reader asked for. What an export says about itself is not signed, so it cannot prove that it is all."""

    is_whole: bool = False
    subject: tuple[str, str] | None = None  # kind and id, as entries name it: from its first entry on
    days: tuple[str, str] | None = None  # first and last, as 2026-11-30; "" is open


@dataclass
class Part:
    """What an export has of one log."""

    origin: str
    size: int  # of the signed checkpoint
    entries: int = 0  # how many of them are in the export, at their places
    first: int | None = None
    last: int | None = None
    newest_at: str = ""  # time of the newest event

    def is_whole(self) -> bool:
        """Return whether no entry is left out."""
        return self.entries == self.size

    def __str__(self) -> str:
        span = f" ({self.first} to {self.last})" if self.entries else ""
        newest = f" Newest event: {self.newest_at}." if self.newest_at else ""
        return f"{self.origin}: {self.entries} of {self.size} entries{span}.{newest}"


@dataclass
class Result:
    """What was found. `problems` is empty for an export that is all right."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    entries: int = 0
    parts: list[Part] = field(default_factory=list)
    restores: list[str] = field(default_factory=list)  # logs that began after a restore, which lost entries

    def is_selection(self) -> bool:
        """Return whether entries of a log are left out."""
        return not all(part.is_whole() for part in self.parts)

    def first(self) -> Problem | None:
        """Return the first problem: of entries by index, then those of a whole log."""

        def place(problem: Problem) -> tuple[bool, str, int]:
            return problem.index is None, problem.origin, problem.index or 0

        return min(self.problems, key=place, default=None)


class Checker:
    """Checks one export with the keys that the reader trusts, and with older checkpoints that the reader kept."""

    def __init__(
        self,
        export: Export,
        *,
        keys: Sequence[Key] = (),
        older: Sequence[str] = (),
        expected: Expected | None = None,
    ) -> None:
        self.export = export
        self.expected = expected or Expected()
        self.result = Result()
        self._trusted = {key.fingerprint for key in keys}
        self._older = older
        self._heads: dict[int, tuple[Key, Checkpoint]] = {}
        self._starts: list[dict[str, Any]] = []
        self._parts: dict[int, Part] = {}
        self._inside: dict[int, int] = {}  # the last entry so far of the range of each log
        self._ends: dict[tuple[int, int], str] = {}  # the times of the first and the last entry of each range
        self._subject = self.expected.subject or _pair(export.about.get("subject"))
        self._has_subject = False

    def run(self) -> Result:
        """Check everything, and return what was found; raises BadExport for a file that cannot be read."""
        self._read_heads()
        self._check_lines()
        for number in self._heads:
            if self.export.has_tiles(number):
                self._check_whole_log(number)
            elif self.expected.is_whole:
                self._bad(number, None, "The export does not have the files of the whole log.")
        self._check_days()
        if self.expected.subject is not None and not self._has_subject:
            text = f"The export has no entry about {' '.join(self.expected.subject)}."
            self.result.problems.append(Problem("export", None, text))
        self._check_followed()
        self._check_older()
        for start in self._starts:
            self._tell_about(start)
        return self.result

    def _bad(self, origin: int, index: int | None, text: str) -> None:
        name = self._heads[origin][1].origin if origin in self._heads else f"log {origin}"
        self.result.problems.append(Problem(name, index, text))

    def _read_heads(self) -> None:
        for row in self.export.about.get("origins", ()):
            try:
                number, key = int(row["number"]), Key.parse(row["key"])
                checkpoint = key.checkpoint(row["checkpoint"])
            except (KeyError, TypeError) as error:
                raise BadExport(f"export.json cannot be read: {error!r}") from None
            except BadNote as error:
                self._bad(int(row["number"]), None, f"The checkpoint cannot be trusted. {error}")
                continue
            if checkpoint.origin != key.name or number_of(checkpoint.origin) != number:
                self._bad(number, None, f"The checkpoint is of another log: {checkpoint.origin}.")
                continue
            self._heads[number] = (key, checkpoint)
            self._parts[number] = Part(checkpoint.origin, checkpoint.size)
            self.result.parts.append(self._parts[number])
            if self._trusted and key.fingerprint not in self._trusted:
                self._bad(number, None, "The log is signed by another key than the one you trust.")
            if not self._trusted:
                self.result.notices.append(
                    f"{key.name} is signed by the key {key.fingerprint}. Compare it with what you know, or give --key."
                )

    def _check_whole_log(self, number: int) -> None:
        """Derive the tree of a log again from all of its entries."""
        checkpoint = self._heads[number][1]
        roots = Roots()
        older: dict[int, list[Checkpoint]] = {}
        for head in self._older_of(checkpoint.origin):
            older.setdefault(head.size, []).append(head)
        for first in range(0, checkpoint.size, 256):
            width = min(256, checkpoint.size - first)
            tile = self.export.tile(number, "0", first // 256, width) or b""
            bundle = self.export.bundle(number, first // 256, width)
            if bundle is None and not self._has_gap(number, first, width):
                self._bad(number, first, "The entries are missing in the files of the log.")
            for position in range(width):
                signed = tile[position * 32 : position * 32 + 32]
                if bundle is not None and hash_of_entry(bundle[position]) != signed:
                    self._bad(number, first + position, "The entry in the files of the log was changed.")
                roots.add(signed)
                if any(roots.root() != head.root for head in older.get(roots.size, ())):
                    self._bad(number, None, f"The log does not begin with your checkpoint of size {roots.size}.")
        if roots.root() != checkpoint.root:
            self._bad(number, None, "The hashes in the files of the log do not lead to the signed root.")

    def _has_gap(self, number: int, first: int, width: int) -> bool:
        name = self._heads[number][1].origin
        places = range(first, first + width)
        return any(row.origin == name and row.index is not None and row.index in places for row in self.result.problems)

    def _check_lines(self) -> None:
        last: dict[int, int] = {}
        heads: dict[tuple[int, str, str], tuple[int, str]] = {}
        for line in self.export.lines():
            self.result.entries += 1
            if line.origin not in self._heads:
                self._bad(line.origin, line.index, "The entry is of a log without a checkpoint that can be trusted.")
                continue
            before = last.get(line.origin)
            if before is not None and line.index <= before:
                self._bad(line.origin, line.index, "The entry stands at the wrong place, or twice.")
            last[line.origin] = max(line.index, before or 0)
            self._check_gap(line)
            is_sealed = self._check_inclusion(line)
            if (value := self._parsed(line)) is None:
                continue
            if is_sealed and (before is None or line.index > before):
                self._count(line, value)
            if value["type"] == "start":
                self._starts.append(value)
            elif value["type"] == "missing":
                self._bad(line.origin, line.index, f"Event {value['event']} was removed before it was sealed.")
            else:
                self._check_event(line, value)
                self._check_links(line, value, heads)
        self._check_ends()

    def _span(self, number: int) -> tuple[int, int] | None:
        """Return the first and the last index between which no entry of a log can be left out; None for no claim."""
        if self.expected.is_whole and number in self._heads:
            return 0, self._heads[number][1].size - 1
        return self.export.spans.get(number)

    def _count(self, line: Line, value: dict[str, Any]) -> None:
        part = self._parts[line.origin]
        part.entries += 1
        part.first = line.index if part.first is None else part.first
        part.last = line.index
        at = str(value.get("at", ""))
        if value["type"] == "event":
            part.newest_at = max(part.newest_at, at)
        if line.index in (self._span(line.origin) or ()):
            self._ends[line.origin, line.index] = at

    def _check_gap(self, line: Line) -> None:
        span = self._span(line.origin)
        if span is None or line.index < span[0]:
            return  # a selection, or the first entry of a log, which each export has
        expected = self._inside.get(line.origin, span[0] - 1) + 1
        if line.index > expected:
            many = f" to {line.index - 1}" if line.index - 1 > expected else ""
            self._bad(line.origin, expected, f"Entries are missing: {expected}{many}.")
        self._inside[line.origin] = max(line.index, expected - 1)

    def _check_ends(self) -> None:
        for number in sorted({*self._heads, *self.export.spans}):
            if (span := self._span(number)) is None:
                continue
            found = self._inside.get(number, span[0] - 1)
            if found < span[1]:
                self._bad(number, found + 1, f"Entries are missing: {found + 1} to {span[1]}.")

    def _check_days(self) -> None:
        """Check that the entries just before and after those of the days are of other days, or that there are none."""
        days = self.expected.days or (self.export.days if self.export.spans else None)
        if days is None or self.expected.is_whole:
            return
        first, last = days
        for number, (_, checkpoint) in self._heads.items():
            if (span := self._span(number)) is None:
                self._bad(number, None, "The export does not have all entries of these days.")
                continue
            for index, is_end in ((span[0], span[0] == 0), (span[1], span[1] >= checkpoint.size - 1)):
                at = self._ends.get((number, index), "")
                if at and not is_end and first <= at[:10] <= (last or "9999"):
                    self._bad(number, index, "It is of these days too, so entries next to it may be missing.")

    def _check_inclusion(self, line: Line) -> bool:
        """Return whether the entry is at its place in the tree that the checkpoint signs."""
        checkpoint = self._heads[line.origin][1]
        try:
            root = root_by_inclusion(line.index, checkpoint.size, hash_of_entry(line.entry), line.proof)
        except BadProof as error:
            self._bad(line.origin, line.index, f"Its proof is no proof. {error}")
            return False
        if root != checkpoint.root:
            self._bad(line.origin, line.index, "The entry is not what was sealed at this place.")
        return root == checkpoint.root

    def _parsed(self, line: Line) -> dict[str, Any] | None:
        try:
            value = json.loads(line.entry)
            is_known = value["v"] == 1 and value["type"] in {"event", "start", "missing"}
        except (ValueError, KeyError, TypeError):
            is_known = False
        if not is_known:
            self._bad(line.origin, line.index, "The entry is of a kind that this program does not know.")
            return None
        if canonical(value).encode() != line.entry:
            self._bad(line.origin, line.index, "The entry is not canonical JSON.")
        return dict(value)

    def _check_event(self, line: Line, value: dict[str, Any]) -> None:
        """Compare the row in the database with the entry: its open fields, and its texts by their hashes."""
        if line.event is None:
            self._bad(line.origin, line.index, f"Event {value['event']} is no longer in the database.")
            return
        changed = [name for name in OPEN if line.event.get(name) != value.get(name)]
        unsalted = []
        for position, name in enumerate(FIELDS):
            salt = line.salts[position * SALT_BYTES : (position + 1) * SALT_BYTES]
            if len(salt) != SALT_BYTES or salt == NO_SALT:
                unsalted.append(name)  # nothing erases salts yet, so somebody hides a change
            elif text_hash(name, line.event.get(name), salt) != value["hashed"].get(name):
                changed.append(name)
        if changed:
            self._bad(
                line.origin, line.index, f"Event {value['event']} was changed in the database: {', '.join(changed)}."
            )
        if unsalted:
            text = f"The salts of event {value['event']} are gone, so its texts cannot be checked: "
            self._bad(line.origin, line.index, f"{text}{', '.join(unsalted)}.")

    def _check_links(
        self, line: Line, value: dict[str, Any], heads: dict[tuple[int, str, str], tuple[int, str]]
    ) -> None:
        is_from_start = bool(self.expected.subject or self.export.about.get("is_from_start"))
        for link in value["links"]:
            place = (line.origin, link["kind"], link["id"])
            is_chosen = self._subject == (link["kind"], link["id"])
            self._has_subject |= is_chosen
            count, previous = heads.get(place, (0, ""))
            is_next = place in heads and link["n"] == count + 1
            if is_next and link["previous"] != previous:
                self._bad(line.origin, line.index, f"It does not follow number {count} of {link['kind']} {link['id']}.")
            if is_chosen and link["n"] != count + 1 and (place in heads or is_from_start):
                self._bad(
                    line.origin,
                    line.index,
                    f"Numbers {count + 1} to {link['n'] - 1} of {link['kind']} {link['id']} are missing.",
                )
            heads[place] = (link["n"], hash_of_entry(line.entry).hex())

    def _older_of(self, origin: str) -> Iterator[Checkpoint]:
        for _, checkpoint in self._kept():
            if checkpoint.origin == origin:
                yield checkpoint

    def _kept(self) -> Iterator[tuple[str, Checkpoint]]:
        """Yield the older checkpoints that a known key signed. A checkpoint of any log of the same key counts."""
        keys = {key.raw for key, _ in self._heads.values()}
        for note in self._older:
            name = note.partition("\n")[0]
            for raw in keys:
                try:
                    yield note, Key(name, raw).checkpoint(note)
                except BadNote:
                    continue
                break

    def _check_older(self) -> None:
        kept = list(self._kept())
        for note in self._older:
            if note not in {text for text, _ in kept}:
                self.result.problems.append(
                    Problem(
                        note.partition("\n")[0][:200],
                        None,
                        "Your older checkpoint is not signed by the key of the export.",
                    )
                )
        roots: dict[tuple[str, int], bytes] = {}
        for _, old in kept:
            if roots.setdefault((old.origin, old.size), old.root) != old.root:
                text = f"Two of your checkpoints have the size {old.size} and different roots: the log was forked."
                self.result.problems.append(Problem(old.origin, None, text))
        by_name = {checkpoint.origin: number for number, (_, checkpoint) in self._heads.items()}
        proofs = self.export.consistency()
        for _, old in kept:
            if old.origin not in by_name:
                self._check_answered(old)
                continue
            number = by_name[old.origin]
            now = self._heads[number][1]
            if old.size > now.size:
                if not self._is_answered(old):
                    self._bad(
                        number,
                        now.size,
                        f"Your checkpoint has {old.size} entries, and the export ends after {now.size}. If a new export"
                        " does too, the log was cut.",
                    )
                continue
            if old.size == now.size:
                if old.root != now.root:
                    self._bad(number, None, f"Your checkpoint of size {old.size} has another root.")
                continue
            if self.export.has_tiles(number):
                continue  # was compared while the tree was derived
            self._check_consistency(number, old, now, proofs.get((number, old.size)))

    def _check_consistency(self, number: int, old: Checkpoint, now: Checkpoint, proof: list[bytes] | None) -> None:
        if proof is None:
            self._bad(
                number, None, f"The export has no proof for your checkpoint. Export again with --since-size {old.size}."
            )
            return
        try:
            roots = roots_by_consistency(old.size, now.size, old.root, proof)
        except BadProof as error:
            self._bad(number, None, f"The proof for your checkpoint of size {old.size} is no proof. {error}")
            return
        if roots != (old.root, now.root):
            self._bad(number, None, f"The log does not begin with the one of your checkpoint of size {old.size}.")

    def _check_followed(self) -> None:
        """Compare what the first entries say about the logs before them with what the export has of those."""
        sizes = {checkpoint.origin: checkpoint.size for _, checkpoint in self._heads.values()}
        lost = set()  # logs of which the database had nothing when the next one began
        for start in self._starts:
            if (before := start.get("previous")) is None:
                continue
            if before["restored_size"] == 0:
                lost.add(number_of(before["origin"]))
            if sizes.get(before["origin"], 0) < before["restored_size"]:
                text = f"It follows {before['restored_size']} entries of {before['origin']}, which the export lacks."
                self.result.problems.append(Problem(start["origin"], 0, text))
        begun = {start["origin"] for start in self._starts}
        for number, (_, checkpoint) in self._heads.items():
            if number > 1 and checkpoint.origin not in begun:
                self._bad(number, 0, "The first entry is missing, which names the log before.")
        for number in range(1, max(self._heads, default=0)):
            if number not in self._heads and number not in lost:
                self._bad(number, None, "The log is missing.")

    def _is_answered(self, old: Checkpoint) -> bool:
        """Return whether a later log says that it follows the log of a checkpoint, and that the database lacked it.

        What the database still had when the later log began must be in the export.
        """
        for start in self._starts:
            row = start.get("previous")
            if row is None or row["origin"] != old.origin or row["restored_size"] >= old.size:
                continue
            if row["size"] > old.size or (row["size"] == old.size and row["root"] == old.root.hex()):
                return True
        return False

    def _check_answered(self, old: Checkpoint) -> None:
        if not self._is_answered(old):
            self.result.problems.append(
                Problem(old.origin, None, "Your checkpoint is of a log that the export does not have.")
            )

    def _tell_about(self, start: dict[str, Any]) -> None:
        if (previous := start.get("previous")) is None:
            if start["backlog"]:
                self.result.notices.append(f"{start['origin']}: {start['backlog']} events are older than the log.")
            return
        lost = previous["size"] - previous["restored_size"]
        if start["why"] != "restored":
            how = "the key was changed"
        else:
            self.result.restores.append(start["origin"])
            lacks = f"lacks {lost} entries" if lost > 0 else "has another history of it"
            how = f"the database was restored and {lacks}"
        self.result.notices.append(
            f"{start['origin']} follows {previous['origin']}, which had {previous['size']} entries: {how}."
        )


def _pair(subject: Any) -> tuple[str, str] | None:
    return (str(subject.get("kind")), str(subject.get("id"))) if isinstance(subject, dict) else None
