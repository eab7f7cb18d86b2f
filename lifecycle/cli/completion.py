"""Completion scripts for bash, zsh and fish, generated from the parser, so that they never lag behind it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Final

SHELLS: Final = ("bash", "zsh", "fish")

Place = tuple[tuple[str, ...], list[tuple[str, str]]]  # (commands so far, [(next word, its help)])
Words = list[Place]


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script of a shell, one of SHELLS."""
    words = list(_words(parser, ()))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser.prog, words)


def _words(
    parser: argparse.ArgumentParser, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], list[tuple[str, str]]]]:
    """Yield (commands so far, [(next word, its help)]) of a parser and of those below it."""
    found: list[tuple[str, str]] = []
    below = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found += [(name, helps.get(name, "")) for name in action.choices]
            below += list(action.choices.items())
        elif action.option_strings:
            found.append((action.option_strings[-1], action.help or ""))
        elif action.choices:
            found += [(str(choice), "") for choice in action.choices]
    yield path, [(word, _sentence(text)) for word, text in found]
    for name, child in below:
        yield from _words(child, (*path, name))


def _sentence(text: str) -> str:
    """Return a help text without what shells and argparse would read as code."""
    return re.sub(r"[^\w ,.;()/-]", "", text.replace("%(default)s", ""))


def _bash(prog: str, words: Words) -> str:
    cases = "\n".join(
        f'    "{" ".join(path)}") words="{" ".join(word for word, _ in after)}" ;;' for path, after in words
    )
    return f"""\
# {prog} completion for bash. Load it with: source <({prog} completion bash)
_{prog}() {{
  local word words path=""
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    [[ $word == -* || $path == *" "* ]] && continue
    path="${{path:+$path }}$word"
  done
  case "$path" in
{cases}
    *) words="" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -F _{prog} {prog}
"""


def _zsh(prog: str, words: Words) -> str:
    cases = "\n".join(
        f'    "{" ".join(path)}") after=({" ".join(_zsh_word(*item) for item in after)}) ;;' for path, after in words
    )
    return f"""\
#compdef {prog}
# {prog} completion for zsh. Load it with: source <({prog} completion zsh)
_{prog}() {{
  local word path_=""
  local -a after
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    [[ $word == -* || $path_ == *" "* ]] && continue
    path_="${{path_:+$path_ }}$word"
  done
  case "$path_" in
{cases}
  esac
  _describe '{prog}' after
}}
compdef _{prog} {prog}
"""


def _zsh_word(word: str, text: str) -> str:
    return f"'{word}:{text}'" if text else f"'{word}'"


def _fish(prog: str, words: Words) -> str:
    lines = [f"# {prog} completion for fish. Load it with: {prog} completion fish | source", f"complete -c {prog} -f"]
    for path, after in words:
        if not path:
            condition = "__fish_use_subcommand"
        else:
            condition = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in path)
            deeper = [word for word, _ in after if not word.startswith("-")]
            if deeper:
                condition += f"; and not __fish_seen_subcommand_from {' '.join(deeper)}"
        for word, text in after:
            what = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
            lines.append(f"complete -c {prog} -n '{condition}' {what} -d '{text}'")
    return "\n".join(lines) + "\n"
