"""YAML of users, read without its traps: numbers in base 60, numbers without an end, and keys that are there twice.

It stands here because the command line imports nothing of ours, and the server reads the same files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

# Plain scalars that are no texts, by what they can begin with. YAML 1.1 also has numbers in base 60 (1:30), which take
# time in the square of their length, and times, which JSON does not have: both are texts here. Lengths are bounded.
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,18}|0b[01_]{1,64}|0x[0-9a-fA-F_]{1,16}|0[0-7_]{1,22})")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9][0-9_]{0,30}\.[0-9_]{0,30}|\.[0-9][0-9_]{0,30})(?:[eE][-+][0-9]{1,3})?")
_BOOL: Final = re.compile(r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_NULL: Final = re.compile(r"~|null|Null|NULL|")
_MERGE: Final = re.compile(r"<<")
_KINDS: Final = (
    ("bool", _BOOL, "yYnNtTfFoO"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("null", _NULL, ("~", "n", "N", "")),
    ("merge", _MERGE, "<"),
)
_TAG: Final = "tag:yaml.org,2002:"
_CONSTRUCTED: Final = ("null", "bool", "int", "float", "str", "seq", "map")
_NUMBERS: Final = {"int": _INT, "float": _FLOAT}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C one where it is built in
    """The safe loader with bounded numbers, and texts in place of times. Other tags are refused."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    yaml_constructors: dict[str | None, Any] = {}


def _number(kind: str) -> Any:
    """Return the constructor of a number, which a tag can ask for whatever the text is."""
    made = yaml.SafeLoader.yaml_constructors[_TAG + kind]

    def construct(loader: Any, node: Any) -> Any:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if not _NUMBERS[kind].fullmatch(text):
            raise yaml.constructor.ConstructorError(None, None, f"this is no {kind}", node.start_mark)
        try:
            return made(loader, node)
        except ValueError:  # 0x_
            raise yaml.constructor.ConstructorError(None, None, f"this is no {kind}", node.start_mark) from None

    return construct


for _name, _pattern, _first in _KINDS:
    for _letter in _first:
        _whole = re.compile(rf"(?:{_pattern.pattern})\Z")  # the library matches from the beginning
        Loader.yaml_implicit_resolvers.setdefault(_letter, []).append((_TAG + _name, _whole))
for _name in _CONSTRUCTED:
    _made = _number(_name) if _name in _NUMBERS else yaml.SafeLoader.yaml_constructors[_TAG + _name]
    Loader.yaml_constructors[_TAG + _name] = _made
Loader.yaml_constructors[None] = yaml.SafeLoader.yaml_constructors[None]  # refuses what it does not know


def events_of(text: str) -> Iterator[Any]:
    """Return the parser's events; raises YAMLError, also for a key that is twice in one object, or is an alias.

    Keys are compared as they are written. Which of the two counts is no question that a reader of the file can answer.
    """
    objects: list[set[str] | None] = []  # keys of each open object; None for a list
    wants_key: list[bool] = []
    for event in yaml.parse(text, Loader=Loader):
        is_key = bool(objects) and objects[-1] is not None and wants_key[-1]
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            objects.pop()
            wants_key.pop()
        elif isinstance(event, yaml.NodeEvent):
            if is_key:
                _note_key(event, objects[-1])
            if objects:
                wants_key[-1] = not wants_key[-1]
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                objects.append(set() if isinstance(event, yaml.MappingStartEvent) else None)
                wants_key.append(True)
        yield event


def _note_key(event: Any, keys: set[str] | None) -> None:
    mark: Any = event.start_mark
    if not isinstance(event, yaml.ScalarEvent):
        raise yaml.MarkedYAMLError(problem="a key is a text or a number", problem_mark=mark)
    if keys is not None and event.value in keys:
        raise yaml.MarkedYAMLError(problem=f"{event.value[:60]} is there twice", problem_mark=mark)
    if keys is not None:
        keys.add(event.value)


def load(text: str) -> Any:
    """Return the one document of a text in YAML or JSON; raises YAMLError or ValueError."""
    for _ in events_of(text):
        pass
    return yaml.load(text, Loader=Loader)  # noqa: S506 -- the safe loader, with less


def load_all(text: str) -> Iterator[Any]:
    """Return the documents of a text, one after another. Only `events_of`, read before, refuses doubled keys."""
    return yaml.load_all(text, Loader=Loader)
