"""Check the files in the layers of an image, in the same pass that reads the records of package managers.

What is kept names a kind of problem, the path and the layer, never what a file contains. The layers are untrusted.
"""

from __future__ import annotations

import posixpath
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any, Final

from lifecycle.sbom.clamd import Clamd, FileTooLarge, ScannerUnavailable
from lifecycle.sbom.layers import same_path
from lifecycle.sbom.secret_rules import secret_rules

TEXT_MAX: Final = 1024 * 1024  # bytes of one file that are searched for keys and credentials
TRACKED_MAX: Final = 100_000  # files of one image that are remembered until its last layer is read
TIME_MAX_S: Final = 600  # for one image
LISTED_MAX: Final = 200  # paths of one kind in one layer; more are only counted
PATH_MAX: Final = 1000  # characters
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_ALIVE_EVERY_S: Final = 2.0
_DEVICES: Final = frozenset({tarfile.CHRTYPE, tarfile.BLKTYPE})


class Kind(StrEnum):
    """What is wrong with a file."""

    SETUID = "setuid"
    SETGID = "setgid"
    WORLD_WRITABLE = "world_writable"
    DEVICE = "device"
    PRIVATE_KEY = "private_key"
    CREDENTIAL = "credential"
    UNOWNED = "unowned"  # a program or script that no package owns
    MALWARE = "malware"


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """One problem of one file. `detail` is the id of a rule, or the name of a signature."""

    kind: str
    path: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LayerContents:
    """What one layer brought that no later layer removed: the first problems of each kind, and how many there are."""

    found: tuple[Found, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Contents:
    """The result of one pass over all layers of an image."""

    layers: Mapping[int, LayerContents]  # by position; only layers with a problem
    problem: str = ""  # why it is not complete; then nothing may count as absent
    malware: str = "off"  # off, clean, found, or unknown
    malware_problem: str = ""  # why it is unknown
    engine: str = ""  # the malware scanner and its signatures


@dataclass(slots=True)
class _Tracked:
    position: int
    found: set[Found] = field(default_factory=set)


class ContentReader:
    """Collects the problems of an image's files, layer by layer from the base. One use."""

    def __init__(self, *, clamd: Clamd | None = None, alive: Callable[[], None] = lambda: None) -> None:
        self._clamd = clamd
        self._alive = alive
        self._rules = secret_rules()
        self._owned: Collection[str] = frozenset()
        self._owned_folders: Collection[str] = frozenset()
        self._tracked: dict[str, _Tracked] = {}
        self._folders: dict[str, int] = defaultdict(int)  # folder -> number of tracked files below it
        self._gone: set[str] = set()  # of the present layer: paths that replace or remove what lower layers have there
        self._opaque: set[str] = set()
        self._position = -1
        self._problems: list[str] = []
        self._unscanned = ""
        self._engine = ""
        self._until = time.monotonic() + TIME_MAX_S
        self._alive_at = 0.0
        self._is_over = False
        self._clamd_is_away = False
        if clamd is not None:
            self._ask_version(clamd)

    def _ask_version(self, clamd: Clamd) -> None:
        try:
            self._engine = clamd.version()[:200]
        except ScannerUnavailable as error:
            self._unscanned, self._clamd_is_away = error.message, True

    def own(self, paths: Collection[str], folders: Collection[str] = ()) -> None:
        """Say which paths (`same_path`) belong to packages, and the folders of which everything does."""
        self._owned, self._owned_folders = paths, folders

    def begin(self, position: int) -> None:
        """Start with the next layer."""
        self._apply_removals()
        self._position = position

    def unreadable(self, position: int) -> None:
        """Note that a layer cannot be read to its end."""
        self._note(f"Layer {position + 1} cannot be read.")

    def give_up(self, problem: str) -> None:
        """Stop, with the reason. What was found so far is kept, and nothing counts as absent."""
        self._is_over = True
        self._note(problem)

    def _note(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.append(problem)

    def visit(self, member: tarfile.TarInfo, content: Callable[[], IO[bytes] | None]) -> None:
        """Look at one member of the present layer. `content` opens a regular file; it is called at most once."""
        self._check_time()
        if self._is_over:
            return
        path = _normal(member.name)
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            self._opaque.add(folder)
        elif name.startswith(_WHITEOUT):
            self._gone.add(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/"))
        elif path:
            self._replace(path, is_folder=member.isdir())
            found = set(self._problems_of(member, path, content))
            if member.islnk() and (target := self._tracked.get(_normal(member.linkname))) is not None:
                found |= {Found(item.kind, path[:PATH_MAX], item.detail) for item in target.found}
            if found:
                self._track(path, found)

    def _check_time(self) -> None:
        now = time.monotonic()
        if now - self._alive_at > _ALIVE_EVERY_S:  # also when the check is over: the other reader goes on
            self._alive_at = now
            self._alive()
        if now > self._until:
            self.give_up(f"The check of the files took longer than {TIME_MAX_S} s.")

    def _replace(self, path: str, *, is_folder: bool) -> None:
        if path in self._tracked:
            self._forget(path)
        if not is_folder and path in self._folders:
            self._gone.add(path)

    def _track(self, path: str, found: set[Found]) -> None:
        if len(self._tracked) >= TRACKED_MAX:
            self.give_up(f"More than {TRACKED_MAX} files of the image would have to be listed.")
            return
        self._tracked[path] = _Tracked(self._position, found)
        for folder in _parents(path):
            self._folders[folder] += 1

    def _forget(self, path: str) -> None:
        del self._tracked[path]
        for folder in _parents(path):
            self._folders[folder] -= 1
            if not self._folders[folder]:
                del self._folders[folder]

    def _apply_removals(self) -> None:
        """Forget what the layer that ends removed from the layers below. A whiteout does not touch its own layer."""
        if self._gone or self._opaque:
            for path, item in list(self._tracked.items()):
                if item.position < self._position and (
                    path in self._gone or any(f in self._gone or f in self._opaque for f in _parents(path))
                ):
                    self._forget(path)
        self._gone, self._opaque = set(), set()

    def _problems_of(
        self, member: tarfile.TarInfo, path: str, content: Callable[[], IO[bytes] | None]
    ) -> Iterator[Found]:
        shown = path[:PATH_MAX]
        if member.type in _DEVICES:
            yield Found(Kind.DEVICE, shown)
        if member.isreg() or member.isdir():
            is_sticky = member.mode & 0o1000
            if member.mode & 0o002 and not (member.isdir() and is_sticky):
                yield Found(Kind.WORLD_WRITABLE, shown)
        if not member.isreg():
            return
        if member.mode & 0o4000:
            yield Found(Kind.SETUID, shown)
        if member.mode & 0o2000:
            yield Found(Kind.SETGID, shown)
        yield from self._in_content(member, path, shown, content)

    def _in_content(
        self, member: tarfile.TarInfo, path: str, shown: str, content: Callable[[], IO[bytes] | None]
    ) -> Iterator[Found]:
        is_owned = self._is_owned(path)
        if not member.size or (is_owned and (self._clamd is None or self._clamd_is_away)):
            return
        file = content()
        if file is None:
            return
        start = file.read(TEXT_MAX)
        if not is_owned:
            if member.mode & 0o111 and start.startswith((b"\x7fELF", b"#!")):
                yield Found(Kind.UNOWNED, shown)
            if not self._rules.is_ignored(path):
                for rule in self._rules.found_in(path, start):
                    yield Found(rule.kind, shown, rule.id)
        if (
            self._clamd is not None
            and not self._clamd_is_away
            and (name := self._infection(self._clamd, file, start, shown))
        ):
            yield Found(Kind.MALWARE, shown, name)

    def _infection(self, clamd: Clamd, file: IO[bytes], start: bytes, path: str) -> str:
        try:
            return clamd.infection_of(file, start)
        except FileTooLarge:
            self._unscanned = self._unscanned or f"/{path[:150]} is larger than the malware scanner takes."
        except ScannerUnavailable as error:  # it is not asked again, so that a daemon that hangs does not end the scan
            self._unscanned, self._clamd_is_away = error.message, True
        return ""

    def _is_owned(self, path: str) -> bool:
        one = same_path(path)
        return one in self._owned or any(folder in self._owned_folders for folder in _parents(one))

    def result(self) -> Contents:
        """Return what was found. Call it after the last layer."""
        self._apply_removals()
        layers: dict[int, list[Found]] = defaultdict(list)
        for item in self._tracked.values():
            layers[item.position] += item.found
        why = self._unscanned or " ".join(self._problems)
        state = "off" if self._clamd is None else "unknown" if why else "clean"
        if any(found.kind == Kind.MALWARE for item in self._tracked.values() for found in item.found):
            state = "found"
        return Contents(
            {position: _listed(found) for position, found in sorted(layers.items())},
            problem=" ".join(self._problems)[:500],
            malware=state,
            malware_problem=why[:500] if self._clamd is not None else "",
            engine=self._engine,
        )


def _listed(found: Sequence[Found]) -> LayerContents:
    by_kind: dict[str, list[Found]] = defaultdict(list)
    for item in sorted(found):
        by_kind[item.kind].append(item)
    shown = [item for kind in sorted(by_kind) for item in by_kind[kind][:LISTED_MAX]]
    return LayerContents(tuple(shown), {kind: len(items) for kind, items in sorted(by_kind.items())})


def _normal(name: str) -> str:
    """Return a path without empty parts, "." and NULs; ".." goes up, but not beyond the root."""
    parts: list[str] = []
    for part in name.replace("\0", "").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def _parents(path: str) -> Iterator[str]:
    """Yield the folders above a path, the nearest first, and at last the root, ""."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def owned_paths(artifacts: Sequence[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """Return the paths (`same_path`) that belong to packages by syft's document, and the folders that do as a whole.

    The files that show a package count too: a program with a list of its parts can be judged by advisories.
    """
    paths: set[str] = set()
    folders: set[str] = set()
    for item in artifacts:
        given = item.get("metadata")
        metadata: Mapping[str, Any] = given if isinstance(given, dict) else {}
        root = str(metadata.get("sitePackagesRootPath") or "/")
        files = metadata.get("files")
        for entry in files if isinstance(files, list) else ():
            name = entry.get("path") if isinstance(entry, dict) else entry
            if isinstance(name, str) and name:
                paths.add(same_path(posixpath.normpath(posixpath.join(root, name))))
        for location in item.get("locations") or ():
            place = str(location.get("path") or "") if isinstance(location, dict) else ""
            if place:
                paths.add(same_path(place))
            if item.get("type") == "npm" and place.endswith("/package.json"):
                folders.add(same_path(posixpath.dirname(place)))
    return paths, folders
