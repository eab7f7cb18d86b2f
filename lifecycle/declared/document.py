"""The access file: its shape, the JSON Schema for editors, and reading it with errors that name the place.

One table says what each object can hold. The reader and the schema are both made from it, so they agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from accounts.verbs import Verb
from lifecycle.cli import yaml_texts
from lifecycle.core.errors import Malformed

VERSION: Final = 1
BYTES_MAX: Final = 1024 * 1024
ROWS_MAX: Final = 5000  # of one list
_DEPTH_MAX: Final = 12
_SLUG: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_ROLE: Final = r"^[A-Za-z0-9_-]{1,60}$"
_PATTERN: Final = r"^[a-z0-9*][a-z0-9._/*-]*$"
# Keys that belong to another file, and what says so.
_RULES: Final = "The rules of an environment belong to policy files, and its settings to gravingdock environment set."
_SECRETS: Final = "Secrets and tokens are never in an access file. Create them on the page of the robot."
_OF_RULES: Final = (
    "rules", "required_approvals", "approval_rules", "soak_s", "soak", "queue_policy", "auto_execute", "verification",
    "gates", "cases", "policy", "exclusions",
)  # fmt: skip
_OF_SECRETS: Final = ("token", "tokens", "secret", "secrets", "password")
_ELSEWHERE: Final[Mapping[str, str]] = dict.fromkeys(_OF_RULES, _RULES) | dict.fromkeys(_OF_SECRETS, _SECRETS)


class BadFile(Malformed):
    """An access file cannot be read. The message names the place and what is expected there."""

    code = "bad_access_file"


@dataclass(frozen=True, slots=True)
class Text:
    """A text. `pattern` is a regular expression, as in JSON Schema."""

    about: str
    pattern: str = ""
    most: int = 255
    choices: tuple[str, ...] = ()
    is_time: bool = False

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""
        found: dict[str, Any] = {"type": "string", "description": self.about, "maxLength": self.most}
        if self.pattern:
            found["pattern"] = self.pattern
        if self.choices:
            found["enum"] = list(self.choices)
        return found | ({"format": "date-time"} if self.is_time else {})

    def read(self, value: Any, where: str) -> Any:
        """Return the text, or a time; raises BadFile."""
        if self.is_time:
            return _time(value, where)
        if not isinstance(value, str) or len(value) > self.most or "\0" in value:
            raise BadFile(f"{where}: write a text of at most {self.most} characters.")
        if self.choices and value not in self.choices:
            raise BadFile(f"{where}: there is no {value[:60]}. Choose one of {', '.join(self.choices)}.")
        if self.pattern and not re.fullmatch(self.pattern.strip("^$"), value):
            raise BadFile(f"{where}: {value[:60]!r} does not match {self.pattern}.")
        return value


@dataclass(frozen=True, slots=True)
class Flag:
    about: str

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""
        return {"type": "boolean", "description": self.about}

    def read(self, value: Any, where: str) -> bool:
        """Return the truth value; raises BadFile."""
        if not isinstance(value, bool):
            raise BadFile(f"{where}: write true or false.")
        return value


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of values of one kind. `key` names the field by which two rows are the same, "" for plain values."""

    about: str
    of: Any
    key: str = ""

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""
        return {"type": "array", "description": self.about, "maxItems": ROWS_MAX, "items": self.of.schema()}

    def read(self, value: Any, where: str) -> list[Any]:
        """Return the values; raises BadFile, also for two rows with one key."""
        if not isinstance(value, list) or len(value) > ROWS_MAX:
            raise BadFile(f"{where}: write a list of at most {ROWS_MAX} entries.")
        rows = [self.of.read(row, f"{where}[{number}]") for number, row in enumerate(value)]
        if self.key:
            seen: set[Any] = set()
            for number, row in enumerate(rows):
                if row[self.key] in seen:
                    raise BadFile(f"{where}[{number}]: {self.key} {row[self.key]} is there twice.")
                seen.add(row[self.key])
        return rows


@dataclass(frozen=True, slots=True)
class Thing:
    """An object with these fields and no others."""

    about: str
    fields: Mapping[str, Any]
    required: tuple[str, ...]
    check: Callable[[dict[str, Any], str], None] | None = field(default=None)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema."""
        return {
            "type": "object",
            "description": self.about,
            "properties": {name: kind.schema() for name, kind in self.fields.items()},
            "required": list(self.required),
            "additionalProperties": False,
        }

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """Return the fields that are there; raises BadFile for another field, or a missing one."""
        if not isinstance(value, dict):
            raise BadFile(f"{where or 'the file'}: write fields, such as {', '.join(self.fields)}.")
        prefix = f"{where}." if where else ""
        for name in value:
            if name not in self.fields:
                known = f"Known are {', '.join(self.fields)}."
                raise BadFile(
                    f"{prefix}{str(name)[:60]}: {_ELSEWHERE.get(str(name), f'there is no such field. {known}')}"
                )
        missing = [name for name in self.required if name not in value]
        if missing:
            raise BadFile(f"{where or 'the file'}: {missing[0]} is missing.")
        found = {name: kind.read(value[name], prefix + name) for name, kind in self.fields.items() if name in value}
        if self.check is not None:
            self.check(found, where)
        return found


def _one_holder(found: dict[str, Any], where: str) -> None:
    if sum(name in found for name in ("user", "robot")) != 1:
        raise BadFile(f"{where}: name one holder: user, or robot.")


_GRANT: Final = Thing(
    "A role that a person or a robot has in the team.",
    {
        "user": Text("User name of a person", most=150),
        "robot": Text("Name of a robot of the team, without the team", _SLUG, 60),
        "role": Text("Short name of a role", _ROLE, 60),
        "repositories": Text("Pattern of repositories; default *", _PATTERN),
        "environment": Text("Only in this environment; default: all", _SLUG, 60),
        "until": Text("When it ends, for example 2027-01-31T00:00:00Z; default: never", most=40, is_time=True),
    },
    ("role",),
    _one_holder,
)
_ENVIRONMENT: Final = Thing(
    "An environment of the team. Their order is the promotion path. Its rules belong to policy files.",
    {
        "name": Text("Short name", _SLUG, 60),
        "title": Text("Display name", most=120),
        "prefix": Text("Target prefix; it changes only while nothing is below it", _SLUG, 60),
        "production": Flag("Whether this is production"),
        "archived": Flag("Whether nothing can be promoted to it"),
    },
    ("name", "prefix"),
)
_ROBOT: Final = Thing(
    "A robot of the team, without its tokens.", {"name": Text("Name, without the team", _SLUG, 60)}, ("name",)
)
_TEAM: Final = Thing(
    "A team. A list that is left out is not compared.",
    {
        "name": Text("Short name", _SLUG, 60),
        "title": Text("Display name", most=120),
        "environments": Rows("All environments of the team, in the order of the promotion path", _ENVIRONMENT, "name"),
        "robots": Rows("All robots of the team", _ROBOT, "name"),
        "grants": Rows("All grants of the team", _GRANT),
    },
    ("name",),
)
_ROLE_OBJECT: Final = Thing(
    "A custom role. Built-in roles are not in the file.",
    {
        "name": Text("Short name", _ROLE, 60),
        "title": Text("Display name", most=120),
        "verbs": Rows("What it allows", Text("A verb", choices=tuple(verb.value for verb in Verb))),
    },
    ("name", "verbs"),
)
_FILE: Final = Thing(
    "Who can do what in Gravingdock: roles, teams, grants, environments and robots.",
    {
        "version": Text("Version of this format", choices=("1",)),
        "roles": Rows("All custom roles. Left out: roles are not compared.", _ROLE_OBJECT, "name"),
        "teams": Rows("Teams. Those that are not here are not touched.", _TEAM, "name"),
    },
    ("version",),
)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the access file, for editors."""
    schema = _FILE.schema()
    schema["properties"]["version"] = {"const": VERSION, "description": "Version of this format"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Gravingdock access file", **schema}


def read_text(text: str) -> dict[str, Any]:
    """Return the document of an access file in YAML or JSON; raises BadFile."""
    if len(text.encode()) > BYTES_MAX:
        raise BadFile("The file is larger than 1 MiB. Split it by team.")
    try:
        _refuse_tricks(text)
        value = yaml_texts.load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadFile(f"This is neither YAML nor JSON: {' '.join(str(error).split())[:200]}.") from None
    return read(value)


def read(value: Any) -> dict[str, Any]:
    """Return a checked document; raises BadFile."""
    version = value.get("version") if isinstance(value, dict) else None
    if type(version) not in {int, str} or str(version) != str(VERSION):  # not true, which equals 1
        raise BadFile(f"The file must begin with version: {VERSION}.")
    return _FILE.read(value | {"version": str(VERSION)}, "")


def _refuse_tricks(text: str) -> None:
    """Raise ValueError for aliases, with which a small file grows without end, and for deep nesting."""
    depth = 0
    for event in yaml_texts.events_of(text):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases (*name) are not allowed")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > _DEPTH_MAX:
                raise ValueError("it is nested too deep")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


def _time(value: Any, where: str) -> datetime:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise BadFile(f"{where}: write a time as 2027-01-31T00:00:00Z.") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def as_yaml(document: Mapping[str, Any]) -> str:
    """Return a document as YAML, in the order of its fields."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
