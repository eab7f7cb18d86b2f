"""Find and replace the base images of a Containerfile.

Syntax: the Dockerfile reference (FROM, AS, COPY --from, ARG before the first FROM, line continuation, escape `\\`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from lifecycle.core.errors import Malformed
from lifecycle.core.types import Digest, parse_repository_name, parse_tag

REFERENCE_MAX: Final = 500  # characters, as stored
_ARG: Final = re.compile(r"ARG\s+([A-Za-z_][A-Za-z0-9_]*)(?:=(\S*))?\s*", re.IGNORECASE)
_FROM: Final = re.compile(
    r"(?P<head>FROM\s+(?:--platform=\S+\s+)?)(?P<image>\S+)(?P<tail>(?:\s+AS\s+(?P<name>\S+))?)\s*", re.IGNORECASE
)
_COPY_FROM: Final = re.compile(
    r"(?P<head>(?:COPY|ADD|RUN)(?:\s+--\S+)*?\s+--(?:mount=\S*?)?from=)(?P<image>[^\s,]+)", re.IGNORECASE
)  # only options of the instruction itself: a command in a RUN can have its own --from
_VARIABLE: Final = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|([A-Za-z_][A-Za-z0-9_]*))")


def _instructions(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, instruction with its continuation lines joined); without comments."""
    start = 0
    parts: list[str] = []
    for number, line in enumerate(text.splitlines()):
        stripped = line.strip()
        if stripped.startswith("#") or (not stripped and not parts):
            continue
        if not parts:
            start = number
        parts.append(stripped.removesuffix("\\").strip())
        if not stripped.endswith("\\"):
            yield start, " ".join(parts)
            parts = []
    if parts:
        yield start, " ".join(parts)


def _expand(text: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda name: values.get(name[1] or name[3]) or name[2] or "", text)


def _default(argument: re.Match[str]) -> str:
    """Return the default value of an ARG, without the quotes around it."""
    text = argument[2] or ""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


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


def _checked(reference: str, line: int) -> str:
    """Return a reference that is valid in a registry; raises Malformed with its line number."""
    where = f"Line {line}: {reference[:80]!r} is not an image reference."
    if len(reference) > REFERENCE_MAX:
        raise Malformed(f"Line {line}: an image reference has at most {REFERENCE_MAX} characters.")
    try:
        name, tag_or_digest = split_reference(reference)
        parse_repository_name(name)
        if "@" in reference:
            Digest.parse(tag_or_digest)
        else:
            parse_tag(tag_or_digest)
    except Malformed as error:
        raise Malformed(f"{where} {error.message}") from None
    return reference


def base_references(text: str, build_args: Mapping[str, str] | None = None) -> list[str]:
    """Return the references of all base images of the recipe, the last stage's FROM first, each once.

    Stages named by `AS` and `scratch` are not base images. Raises Malformed when the recipe has no FROM, or a base that
    is not an image reference. Plans read all recipes, so such a recipe must not be stored.
    """
    values: dict[str, str] = {}
    stages: set[str] = set()
    references: list[str] = []
    last = ""
    is_before_from = True
    for number, instruction in _instructions(text):
        if is_before_from and (argument := _ARG.fullmatch(instruction)):
            values[argument[1]] = (build_args or {}).get(argument[1], _default(argument))
        elif line := _FROM.fullmatch(instruction):
            is_before_from = False
            image = _expand(line["image"], values)
            if not image:
                raise Malformed(f"Line {number + 1}: FROM is empty after its arguments are replaced.")
            last = "" if image.lower() in stages or image == "scratch" else _checked(image, number + 1)
            if last:
                references.append(last)
            if line["name"]:
                stages.add(line["name"].lower())
            stages.add(str(len(stages)))
        elif copied := _COPY_FROM.match(instruction):
            image = copied["image"]
            if image.lower() not in stages and not image.isdigit():
                references.append(_checked(image, number + 1))
    if is_before_from:
        raise Malformed("The recipe has no FROM.")
    return list(dict.fromkeys([last, *references] if last else references))


def pinned(text: str, bases: Mapping[str, str], build_args: Mapping[str, str] | None = None) -> str:
    """Return the recipe with each reference in `bases` replaced; raises Malformed for a reference without a digest.

    Line numbers stay the same, so that messages of the builder match the recipe as written.
    """
    if missing := [name for name in base_references(text, build_args) if name not in bases]:
        raise Malformed(f"The digest of the base {missing[0]} is unknown.")
    values: dict[str, str] = {}
    stages: set[str] = set()
    lines = text.splitlines()
    is_before_from = True
    starts = [number for number, _ in _instructions(text)] + [len(lines)]
    for position, (number, instruction) in enumerate(_instructions(text)):
        new = None
        if is_before_from and (argument := _ARG.fullmatch(instruction)):
            values[argument[1]] = (build_args or {}).get(argument[1], _default(argument))
        elif line := _FROM.fullmatch(instruction):
            is_before_from = False
            image = _expand(line["image"], values)
            if image.lower() not in stages and image != "scratch":
                new = f"{line['head']}{bases[image]}{line['tail']}"
            if line["name"]:
                stages.add(line["name"].lower())
        elif (copied := _COPY_FROM.match(instruction)) and copied["image"] in bases:
            new = instruction.replace(f"from={copied['image']}", f"from={bases[copied['image']]}", 1)
        if new is not None:
            lines[number] = new
            for rest in range(number + 1, starts[position + 1]):
                lines[rest] = ""
    return "\n".join(lines) + "\n"
