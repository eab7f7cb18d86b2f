"""Rewrite here-documents, because the builder of Debian 12 (buildah 1.28) has none.

A RUN becomes a RUN in JSON form, whose script has line ends. A COPY or ADD copies files from a build context of ours.
The rewritten instruction takes as many lines as before, so that messages of the builder match the recipe as written.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from lifecycle.rebuild.expansion import expand
from lifecycle.rebuild.instructions import LINE_MAX, Heredoc, Instruction, heredoc_signs, refusal, shell_words

CONTEXT: Final = "gravingdock-heredocs"  # the name of the build context with the files of COPY and ADD
_TABS: Final = re.compile(r"^\t+", re.MULTILINE)
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
_SPECIAL: Final = re.compile(r"([\s'\"\\])")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What stands in the place of a part of the recipe, and the files that it copies from the context."""

    start: int
    end: int
    text: str
    files: dict[str, bytes] = field(default_factory=dict)


def rewrite(instruction: Instruction, source: str, lookup: Callable[[str], str | None]) -> Rewritten:
    """Return the instruction without here-documents. `lookup` finds variables of COPY and ADD.

    Raises Malformed with the number of the line.
    """
    if instruction.keyword == "onbuild":
        problem = "ONBUILD cannot have a here-document. Write its command on one line, with && between the parts."
        raise refusal(instruction.line, problem)
    if instruction.keyword == "run":
        start = instruction.rest.places[0]
        text = json.dumps(["/bin/sh", "-c", _script(instruction)], ensure_ascii=False)
        files: dict[str, bytes] = {}
    else:
        start = instruction.keyword_start
        text, files = _copy(instruction, lookup)
    if len(text.encode()) > LINE_MAX // 2:
        raise refusal(
            instruction.line, f"a here-document has at most {LINE_MAX // 2} bytes. Use a file of the context."
        )
    return Rewritten(start, instruction.end, text + "\n" * source.count("\n", start, instruction.end), files)


def _content(heredoc: Heredoc) -> str:
    return _TABS.sub("", heredoc.content) if heredoc.drops_tabs else heredoc.content


def _script(instruction: Instruction) -> str:
    """Return what /bin/sh runs, like BuildKit: a here-document alone is the script, or a file of its interpreter."""
    text, first = instruction.rest.text, instruction.heredocs[0]
    if len(shell_words(text)) > 1 or len(instruction.heredocs) > 1:
        return "\n".join([text, *(f"{each.content}{each.name}" for each in instruction.heredocs), ""])
    content = _content(first)
    if not content.startswith("#!"):
        return content
    program, _, argument = content.partition("\n")[0][2:].strip().partition(" ")
    words = [program, argument.strip()] if argument.strip() else [program]
    end = "GRAVINGDOCK"
    while end in content:
        end += "_"
    return f"exec {shlex.join(words)} /dev/fd/3 3<<'{end}'\n{content}{end}\n"


def _copy(instruction: Instruction, lookup: Callable[[str], str | None]) -> tuple[str, dict[str, bytes]]:
    """Return a COPY from our context, and its files by their paths there."""
    line = instruction.line
    words = shell_words(instruction.rest.text)
    if len(words) - 1 != len(instruction.heredocs) or not all(list(heredoc_signs(word)) for word in words[:-1]):
        raise refusal(line, "here-documents and files cannot be sources of one instruction. Use one for each.")
    files = {}
    for heredoc in instruction.heredocs:
        if not _FILE_NAME.fullmatch(heredoc.name):
            raise refusal(line, f"the name of a here-document needs letters and digits, not {heredoc.name[:30]!r}.")
        content = _content(heredoc)
        if heredoc.is_expanded:
            content = _expanded(content, line, heredoc.name, lookup)
        files[f"{line}/{heredoc.name}"] = content.encode()
    options = []
    for option in instruction.options:
        if option.text.startswith("--from"):
            raise refusal(line, "a here-document cannot be copied from an image.")
        if not option.text.startswith("--link"):  # changes no file, and buildah 1.28 refuses it
            options.append(_SPECIAL.sub(r"\\\1", option.text))
    if not any(option.startswith("--chown=") for option in options):
        options.append("--chown=0:0")  # else the files would belong to the account that builds
    return " ".join(["COPY", f"--from={CONTEXT}", *options, *(f"/{path}" for path in files), words[-1]]), files


def _expanded(content: str, line: int, name: str, lookup: Callable[[str], str | None]) -> str:
    def known(variable: str) -> str | None:
        value = lookup(variable)
        if value is None:
            problem = f"the here-document uses ${variable[:40]}, whose value is unknown before the build."
            advice = f"Quote its name, <<'{name}', to keep the text, or set the variable with ARG or ENV in this stage."
            raise refusal(line, f"{problem} {advice}")
        return value

    return expand(content, known, keep_quotes=True)
