"""Find and replace the base images of a Containerfile, which is read as the builder reads it (docs/adr/0014)."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from lifecycle.core.errors import Malformed
from lifecycle.core.types import Digest, parse_repository_name, parse_tag
from lifecycle.rebuild import heredocs
from lifecycle.rebuild.expansion import BadWord, expand
from lifecycle.rebuild.instructions import Instruction, Option, Piece, read_instructions, refusal, words_of

REFERENCE_MAX: Final = 500  # characters, as stored
_NUMBER: Final = re.compile(r"[+-]?[0-9]+")
# Options that some version of the builder knows. It refuses the others itself, but only after the bases were fetched.
_OPTIONS: Final = {
    "from": {"platform"},
    "copy": {"from", "chown", "chmod", "link", "parents", "exclude"},
    "add": {"chown", "chmod", "link", "checksum", "keep-git-dir", "exclude", "unpack"},
    "run": {"mount", "network", "security", "device"},
}
_NOT_BUILT: Final = ("network", "security", "device")  # options of RUN that buildah 1.28 refuses when it builds them
_LINKS: Final = frozenset({"--link", "--link=true"})
_NEEDS_ARGUMENTS: Final = frozenset(
    {
        "add", "arg", "copy", "env", "expose", "healthcheck", "label", "maintainer", "onbuild", "shell", "stopsignal",
        "user", "volume", "workdir",
    }
)  # fmt: skip
_NOT_IN_ONBUILD: Final = frozenset({"from", "maintainer", "onbuild"})
# Arguments that a build may be given without an ARG: imagebuilder, builtinAllowedBuildArgs.
_ALWAYS_ALLOWED: Final = frozenset(
    name for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY") for name in (word, word.lower())
)
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""), "aarch64": ("arm64", ""), "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6"),
    "i386": ("386", ""), "i686": ("386", ""),
}  # fmt: skip


def split_reference(reference: str) -> tuple[str, str]:
    """Return (repository name, tag or digest) of an image reference; without the host."""
    first, slash, rest = reference.partition("/")
    name = rest if slash and (first == "localhost" or "." in first or ":" in first) else reference
    name, _, digest = name.partition("@")
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    if not last:
        raise Malformed("Not an image reference.", got=reference[:150])
    return f"{folder}{slash}{last}", digest or tag or "latest"


def base_references(text: str, build_args: Mapping[str, str] | None = None) -> list[str]:
    """Return the references of all base images of the recipe, each once. The base of the result is the first.

    Stages and `scratch` are not base images, and a stage that the result does not need has none, because the builder
    skips it. Raises Malformed, with the number of the line, for a recipe that the builder cannot read. Plans read all
    recipes, so such a recipe must not be stored.
    """
    reading = _Reading(text, build_args or {})
    found = [each.reference for each in reading.bases]
    first = reading.base_of_result()
    return list(dict.fromkeys([first, *found] if first else found))


def pinned(text: str, bases: Mapping[str, str], build_args: Mapping[str, str] | None = None) -> str:
    """Return the recipe with each reference in `bases` replaced; raises Malformed for a reference without a digest.

    All other characters stay as they are. So do the numbers of lines, and messages of the builder match the recipe as
    written.
    """
    reading = _Reading(text, build_args or {})
    if missing := [each.reference for each in reading.bases if each.reference not in bases]:
        raise Malformed(f"The digest of the base {missing[0]} is unknown.")
    return _replaced(text, reading.replaced_bases(text, bases))


@dataclass(frozen=True, slots=True)
class BuilderInput:
    """What the builder gets: the recipe, the files of its here-documents by their paths, and the options it needs."""

    text: str
    files: dict[str, bytes]
    options: list[str]


def for_builder(text: str, bases: Mapping[str, str], build_args: Mapping[str, str] | None, folder: str) -> BuilderInput:
    """Return the recipe as `pinned` does, and without here-documents and `--link`, which buildah 1.28 has not.

    The files must be in `folder`, as the builder sees it. Raises Malformed.
    """
    pinned(text, bases, build_args)
    reading = _Reading(text, build_args or {})
    files = {path: content for each in reading.rewritten for path, content in each.files.items()}
    options = ["--skip-unused-stages=false"] if reading.names_stage_by_variable else []
    if files:
        options.append(f"--build-context={heredocs.CONTEXT}={folder}")
    changes = [*reading.replaced_bases(text, bases), *((each.start, each.end, each.text) for each in reading.rewritten)]
    return BuilderInput(_replaced(text, sorted(changes)), files, options)


def _replaced(text: str, changes: list[tuple[int, int, str]]) -> str:
    """Return the text with each (start, end, new text) in place, in this order."""
    parts = []
    at = 0
    for start, end, new in changes:
        parts += [text[at:start], new]
        at = end
    return "".join([*parts, text[at:]])


def builtin_arguments() -> dict[str, str]:
    """Return the arguments that the builder sets itself, such as TARGETARCH, for this machine's platform."""
    machine = platform.machine()
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    whole = f"linux/{architecture}" + (f"/{variant}" if variant else "")
    values = {"PLATFORM": whole, "OS": "linux", "ARCH": architecture, "VARIANT": variant}
    return {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class _Base:
    """A reference with its range in the file, and the places in the range that the builder reads."""

    reference: str
    start: int
    end: int
    places: frozenset[int]
    stage: int  # the position of the stage that needs it


@dataclass(slots=True)
class _Stage:
    """What a stage has set so far. `unsure` are names whose value may come from the environment of the base."""

    position: int
    name: str
    base: str  # a reference, or "" for scratch
    parent: _Stage | None
    arguments: dict[str, str]
    allowed: set[str]
    environment: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    uses: set[int] = field(default_factory=set)  # positions of the stages that it copies from or mounts
    refusals: list[Malformed] = field(default_factory=list)  # of what the builder refuses, if it builds this stage

    def visible_arguments(self) -> dict[str, str]:
        return {name: value for name, value in self.arguments.items() if name in self.allowed}


class _Reading:
    """One pass over a recipe. `bases` lists the references of the stages that are built, in the order of the file."""

    def __init__(self, text: str, build_args: Mapping[str, str]) -> None:
        self._given = dict(build_args)
        self._builtin = builtin_arguments()
        self._stages: list[_Stage] = []
        self.bases: list[_Base] = []
        self.rewritten: list[heredocs.Rewritten] = []
        # The builder skips stages that nothing uses, and does not see that an argument names one.
        self.names_stage_by_variable = False
        self._text = text
        recipe = read_instructions(text)
        self._escape = recipe.escape
        # ARGs before the first FROM are a scope of their own: a stage sees one only if it repeats its name.
        self._heading = self._new_stage(-1, "", "", None)
        for instruction in recipe.instructions:
            try:
                self._read(instruction)
            except BadWord as error:
                raise refusal(instruction.line, f"{error}.") from None
        if not self._stages:
            raise Malformed("The recipe has no FROM.")
        built = self._built_stages()
        self._skipped = [base for base in self.bases if base.stage not in built]
        self.bases = [base for base in self.bases if base.stage in built]
        for stage in self._stages:
            if stage.refusals and stage.position in built:
                raise stage.refusals[0]

    def _built_stages(self) -> set[int]:
        """Return the positions of the stages that the builder builds: the last one, and all that it needs.

        The builder notes this by name, so with one stage it builds all stages of the same name.
        """
        if self.names_stage_by_variable:
            return set(range(len(self._stages)))
        built: set[int] = set()
        waiting = [len(self._stages) - 1]
        while waiting:
            stage = self._stages[waiting.pop()]
            if stage.position not in built:
                built.add(stage.position)
                waiting += [*stage.uses, *([stage.parent.position] if stage.parent else [])]
                waiting += [other.position for other in self._stages if other.name == stage.name]
        return built

    def replaced_bases(self, text: str, bases: Mapping[str, str]) -> list[tuple[int, int, str]]:
        """Return (start, end, new text) of every base. A continuation inside of it stays, in front of the new one.

        The base of a stage that is not built is replaced too if it is known. The builder does not look for it.
        """
        changes = []
        known = [each for each in self._skipped if each.reference in bases]
        for each in sorted([*self.bases, *known], key=lambda base: base.start):
            between = "".join(text[place] for place in range(each.start, each.end) if place not in each.places)
            changes.append((each.start, each.end, between + bases[each.reference]))
        return changes

    def base_of_result(self) -> str:
        """Return the reference that the last stage starts from, through other stages; "" for scratch."""
        stage = self._stages[-1]
        while stage.parent is not None:
            stage = stage.parent
        return stage.base

    def _new_stage(self, position: int, name: str, base: str, parent: _Stage | None) -> _Stage:
        return _Stage(position, name, base, parent, dict(self._given), set(_ALWAYS_ALLOWED))

    def _read(self, instruction: Instruction) -> None:
        keyword = instruction.keyword
        if not self._stages and keyword not in ("from", "arg"):
            raise refusal(instruction.line, f"only ARG can stand before the first FROM, not {keyword.upper()}.")
        if keyword in _NEEDS_ARGUMENTS and not instruction.rest.text:
            raise refusal(instruction.line, f"{keyword.upper()} needs an argument.")
        if keyword in ("add", "copy") and not instruction.is_json and len(instruction.words) < 2:
            raise refusal(instruction.line, f"{keyword.upper()} needs a source and a destination.")
        _check_options(instruction)
        scope = self._stages[-1] if self._stages else self._heading
        if keyword == "from":
            self._read_from(instruction)
        elif keyword == "arg":
            self._read_arguments(scope, instruction)
        elif keyword in ("env", "label"):
            self._read_pairs(scope, instruction)
        elif keyword == "copy":
            self._read_copy(scope, instruction)
        elif keyword == "run":
            self._read_mounts(scope, instruction)
        if not instruction.heredocs:
            self._drop_links(instruction)
        else:
            values = scope.visible_arguments() | scope.environment
            known = {name: value for name, value in values.items() if name not in scope.unsure}
            self.rewritten.append(heredocs.rewrite(instruction, self._text, known.get))
        if keyword == "onbuild" and (inner := instruction.words[0].text).lower() in _NOT_IN_ONBUILD:
            raise refusal(instruction.line, f"ONBUILD cannot contain {inner.upper()}.")

    def _drop_links(self, instruction: Instruction) -> None:
        """Leave `--link` of COPY and ADD out for the builder: buildah 1.28 refuses it, and the files are the same."""
        for option in instruction.options:
            start, end = (option.ranges[0][0], option.ranges[-1][1]) if option.ranges else (0, 0)
            is_plain = self._text[start:end] == option.text  # without quotes and continuations
            if instruction.keyword in ("copy", "add") and option.text in _LINKS and is_plain:
                self.rewritten.append(heredocs.Rewritten(start, end, ""))

    def _read_from(self, instruction: Instruction) -> None:
        words = instruction.words
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].text.lower() != "as"):
            raise refusal(
                instruction.line,
                "FROM takes an image, and optionally AS and a name. Put a comment on a line of its own.",
            )
        position = len(self._stages)
        name = words[2].text if len(words) == 3 else str(position)
        if set(name) & set("\"'$"):
            raise refusal(instruction.line, "the name of a stage cannot contain quotes or variables.")
        values = self._heading.visible_arguments()
        unset: list[str] = []
        image = expand(words[0].text, _lookup(self._builtin | values, unset))
        if not image:
            names = ", ".join(unset) or words[0].text
            raise refusal(
                instruction.line,
                f"FROM is empty, because {names[:100]} has no value. Give it a default before the first FROM: "
                f"ARG {(unset or ['NAME'])[0]}=...",
            )
        parent = self._stage_named(image, instruction.line, by_number=False)
        if parent is not None and "$" in words[0].text:
            self.names_stage_by_variable = True
        if parent is not None or image == "scratch":
            stage = self._new_stage(position, name, "", parent)
            if parent is not None:
                stage.environment = dict(parent.environment)
        else:
            stage = self._new_stage(position, name, _checked(image, instruction.line), None)
            self._add(image, *_inside_quotes(words[0]), words[0], position)
        self._stages.append(stage)

    def _stage_named(self, name: str, line: int, *, by_number: bool) -> _Stage | None:
        """Return the earlier stage of this name, or with this number.

        The builder distinguishes upper and lower case and BuildKit does not, so a name in another case is refused.
        """
        earlier = self._stages if not by_number else self._stages[:-1]
        for stage in reversed(earlier):
            if stage.name == name or (by_number and str(stage.position) == name):
                return stage
        for stage in earlier:
            if stage.name.lower() == name.lower():
                raise refusal(line, f"the stage is named {stage.name!r}, not {name!r}. Write it in the same case.")
        return None

    def _read_arguments(self, stage: _Stage, instruction: Instruction) -> None:
        """Set the values of ARG. The words of one instruction do not see each other's values."""
        lookup_in = stage.visible_arguments() | stage.environment
        for word in words_of(instruction.rest.text, self._escape):
            unset: list[str] = []
            text = expand(word, _lookup(lookup_in, unset, stage.unsure))
            name, equals, value = text.partition("=")
            has_default = bool(equals)
            if not equals and name in self._builtin:
                value, has_default = self._builtin[name], True
            stage.allowed.add(name)
            stage.unsure.discard(name)
            if not has_default and stage is not self._heading:
                heading = self._heading.visible_arguments()
                if name in heading:
                    stage.arguments[name] = heading[name]
            if has_default and name not in self._given:
                stage.arguments[name] = value
                if unset and stage is not self._heading:
                    stage.unsure.add(name)
            if equals and name == "TARGETPLATFORM":
                self._set_target(stage, value, instruction.line)

    def _set_target(self, stage: _Stage, value: str, line: int) -> None:
        """Set the parts of a platform, such as linux/arm/v7, as the builder does for an ARG with a default."""
        parts = value.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise refusal(line, f"{value[:60]!r} is not a platform, such as linux/amd64.")
        for name, part in zip(("TARGETOS", "TARGETARCH", "TARGETVARIANT"), (*parts, ""), strict=False):
            stage.allowed.add(name)
            stage.arguments[name] = part

    def _read_pairs(self, stage: _Stage, instruction: Instruction) -> None:
        """Set the values of ENV, and check those of LABEL: the builder refuses the whole recipe for a wrong one."""
        keyword = instruction.keyword.upper()
        words = words_of(instruction.rest.text, self._escape)
        if not words or "=" not in words[0]:
            parts = instruction.rest.split(times=1)
            if len(parts) < 2:
                raise refusal(instruction.line, f"{keyword} needs a name and a value: {keyword} NAME=value.")
            pairs = [(parts[0].text, parts[1].text)]
        else:
            for word in words:
                if "=" not in word:
                    raise refusal(instruction.line, f"{keyword} needs NAME=value, but {word[:60]!r} has no =.")
            pairs = [(name, value) for name, _, value in (word.partition("=") for word in words)]
        if instruction.keyword != "env":
            return
        values = stage.visible_arguments() | stage.environment
        for written_name, written_value in pairs:
            unset: list[str] = []
            lookup = _lookup(values, unset, stage.unsure)
            name, value = expand(written_name, lookup), expand(written_value, lookup)
            stage.environment[name] = value
            if unset:
                stage.unsure.add(name)

    def _read_copy(self, stage: _Stage, instruction: Instruction) -> None:
        options = [option for option in instruction.options if option.text.partition("=")[0] == "--from"]
        if not options:
            return
        written = options[0].text.removeprefix("--from=")
        if len(options) > 1 or options[0].text == "--from" or "=" in written:
            raise refusal(instruction.line, "COPY takes one --from=<image or stage>.")
        image = self._image_of(stage, written, instruction.line, "COPY --from")
        hidden = [name for name, value in stage.environment.items() if stage.arguments.get(name, value) != value]
        used: list[str] = []
        expand(written, used.append)
        if both := set(used) & set(hidden):
            problem = f"ENV and ARG give {min(both)} two values, and the builder takes both. Rename one of them."
            raise refusal(instruction.line, problem)
        if image:
            self._add_option(
                image, options[0], len("--from="), len(options[0].text), stage=stage, line=instruction.line
            )

    def _read_mounts(self, stage: _Stage, instruction: Instruction) -> None:
        for option in instruction.options:
            if (name := option.text.removeprefix("--").partition("=")[0]) in _NOT_BUILT:
                problem = f"the builder does not support RUN --{name}. Remove it."
                stage.refusals.append(refusal(instruction.line, problem))
            if not option.text.startswith("--mount="):
                continue
            at = len("--mount=")
            written = []
            for part in option.text[at:].split(","):
                if part.startswith("from="):
                    written.append((at + len("from="), part.removeprefix("from=")))
                at += len(part) + 1
            values = stage.arguments | stage.environment
            whole = expand(option.text, _lookup(values, []))
            names = [
                part.removeprefix("from=")
                for part in whole.removeprefix("--mount=").split(",")
                if part.startswith("from=")
            ]
            if len(names) != len(written):
                raise refusal(instruction.line, "write from= of --mount in the recipe itself, not in a variable.")
            for (start, text), name in zip(written, names, strict=True):
                self._check_sure(stage, text, instruction.line, "--mount")
                image = self._image_of(stage, name, instruction.line, "RUN --mount=from", written=text)
                if image and "type=cache" in whole.removeprefix("--mount=").split(","):
                    problem = "RUN --mount=type=cache takes from= a stage, not an image. Add FROM <image> AS <name>."
                    stage.refusals.append(refusal(instruction.line, problem))
                elif image:
                    self._add_option(image, option, start, start + len(text), stage=stage, line=instruction.line)

    def _image_of(self, stage: _Stage, name: str, line: int, where: str, *, written: str = "") -> str:
        """Return the image that an option names, or "" for an earlier stage."""
        written = written or name
        self._check_sure(stage, written, line, where)
        unset: list[str] = []
        image = expand(name, _lookup(stage.visible_arguments(), unset))
        if not image:
            what = f"{unset[0]} has no value in this stage. Add: ARG {unset[0]}" if unset else "it names nothing"
            raise refusal(line, f"{where} is empty: {what}.")
        if _NUMBER.fullmatch(image) and not 0 <= int(image[:9]) < stage.position:
            raise refusal(line, f"{where}={image[:20]} is no earlier stage. Stages are counted from 0.")
        if _NUMBER.fullmatch(image):
            image = str(int(image))
        if (used := self._stage_named(image, line, by_number=True)) is not None:
            stage.uses.add(used.position)
            self.names_stage_by_variable |= "$" in written
            return ""
        return "" if image == "scratch" else _checked(image, line)

    def _check_sure(self, stage: _Stage, written: str, line: int, where: str) -> None:
        used: list[str] = []
        expand(written, used.append)
        if unsure := [name for name in used if name in stage.unsure]:
            raise refusal(
                line, f"{where} uses {unsure[0]}, whose value depends on the base image. Write the image itself."
            )

    def _add_option(self, image: str, option: Option, start: int, end: int, *, stage: _Stage, line: int) -> None:
        if not option.text.isascii():
            raise refusal(line, "the options of an instruction must be ASCII.")
        found = option.range_of(start, end)
        if found is None:
            raise refusal(line, "put quotes around the whole option, or around the image alone.")
        read = [place for first, last in option.ranges[start:end] for place in range(first, last)]
        quoting = [place for quote, after in option.closing.items() for place in (quote, after - 1)]
        self.bases.append(_Base(image, *found, frozenset([*read, *quoting]), stage.position))

    def _add(self, image: str, start: int, end: int, word: Piece, stage: int) -> None:
        self.bases.append(_Base(image, start, end, frozenset(word.places), stage))


def _check_options(instruction: Instruction) -> None:
    known = _OPTIONS.get(instruction.keyword)
    if known is None:
        return
    for option in instruction.options:
        name = option.text.removeprefix("--").partition("=")[0]
        if name not in known:
            allowed = ", ".join(f"--{each}" for each in sorted(known))
            raise refusal(
                instruction.line, f"{instruction.keyword.upper()} has no option --{name[:30]}. Options are: {allowed}."
            )


def _lookup(values: Mapping[str, str], unset: list[str], unsure: set[str] | None = None) -> _Lookup:
    return _Lookup(values, unset, unsure or set())


@dataclass(frozen=True, slots=True)
class _Lookup:
    """Looks variables up, and lists those that have no value here, or one that depends on the base image."""

    values: Mapping[str, str]
    unset: list[str]
    unsure: set[str]

    def __call__(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is None or name in self.unsure:
            self.unset.append(name)
        return value


def _inside_quotes(word: Piece) -> tuple[int, int]:
    """Return the range of a word in the file, without the quotes around it."""
    text = word.text
    start, end = word.places[0], word.places[-1] + 1
    if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1] and text[-2] != "\\":
        return start + 1, end - 1
    return start, end


def _checked(reference: str, line: int) -> str:
    """Return a reference that is valid in a registry; raises Malformed with its line number."""
    if len(reference) > REFERENCE_MAX:
        raise refusal(line, f"an image reference has at most {REFERENCE_MAX} characters.")
    try:
        name, tag_or_digest = split_reference(reference)
        parse_repository_name(name)
        if "@" in reference:
            Digest.parse(tag_or_digest)
        else:
            parse_tag(tag_or_digest)
    except Malformed as error:
        raise refusal(line, f"{reference[:80]!r} is not an image reference. {error.message}") from None
    return reference
