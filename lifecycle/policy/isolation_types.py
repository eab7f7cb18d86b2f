"""Isolation of containers: the checks, their verdicts, and what they look at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, Self

from lifecycle.core.errors import Malformed

CONTAINERS_MAX: Final = 500  # of one pod: more is no pod that anybody runs
LIST_MAX: Final = 10_000  # entries of one list in a pod
NAMES_SHOWN: Final = 5


class Result(StrEnum):
    """What a check says. Unknown is never a pass."""

    PASS = "pass"  # noqa: S105 -- the word of the result, no password
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not_applicable"


class Profile(StrEnum):
    """A Pod Security Standard. `restricted` contains `baseline`."""

    BASELINE = "baseline"
    RESTRICTED = "restricted"


class Kind(StrEnum):
    """What a verdict is about: the pod as a whole, or one kind of container."""

    POD = "pod"
    INIT = "init"
    MAIN = "main"
    EPHEMERAL = "ephemeral"
    IMAGE = "image"  # without a pod: what the image alone says


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What checks need of an image's configuration and files. None: not known, so the check cannot pass.

    A caller that keeps only flags, such as a snapshot, sets `user` to "0" or "1000" and leaves out the names.
    """

    user: str | None = None  # USER as the configuration has it; "" is root
    secret_names: tuple[str, ...] | None = None  # names of ENV that look like secrets; never their values
    exposes_ssh: bool | None = None
    has_healthcheck: bool | None = None
    has_setuid: bool | None = None  # from the check of the image's files

    @classmethod
    def of(cls, config: Mapping[str, Any] | None, *, has_setuid: bool | None = None) -> Self:
        """Return the facts of an OCI or Docker image configuration (the `config` object within it)."""
        if config is None:
            return cls(has_setuid=has_setuid)
        health = config.get("Healthcheck")
        test = health.get("Test") if isinstance(health, Mapping) else None
        ports = config.get("ExposedPorts")
        return cls(
            user=str(config.get("User") or ""),
            secret_names=tuple(sorted(secret_names(_environment_names(config.get("Env"))))),
            exposes_ssh=isinstance(ports, Mapping) and bool({"22", "22/tcp"} & ports.keys()),
            has_healthcheck=isinstance(test, list) and bool(test) and test[0] != "NONE",
            has_setuid=has_setuid,
        )


def _environment_names(lines: Any) -> Iterable[str]:
    """Return the names of `ENV` lines that have a value. A name without a value holds no secret."""
    for line in lines if isinstance(lines, list) else ():
        name, _, value = str(line).partition("=")
        if value:
            yield name


# The words between underscores decide, so that TOKENIZER, MONKEY and PASSWORD_FILE (a path) are no secrets.
_SECRET_WORDS: Final = frozenset(
    [
        "apikey",
        "credential",
        "credentials",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pwd",
        "secret",
        "secrets",
        "token",
        "tokens",
    ]
)
_SECRET_PAIRS: Final = frozenset(
    {("access", "key"), ("api", "key"), ("auth", "key"), ("encryption", "key"), ("private", "key"), ("signing", "key")}
)
_NOT_THE_SECRET: Final = frozenset(
    ["file", "path", "dir", "name", "url", "uri", "endpoint", "length", "ttl", "expiry", "enabled", "version", "id"]
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# The working directory, which every shell sets. MYSQL_PWD is a password.
_HARMLESS: Final = frozenset({"PWD", "OLDPWD"})


def secret_names(names: Iterable[str]) -> set[str]:
    """Return those of these names that look as if their values were secrets."""
    return {name for name in names if _is_secret(name)}


def _is_secret(name: str) -> bool:
    if name in _HARMLESS or len(name) > 200:
        return False
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", _CAMEL.sub("_", name)) if word]
    if not words or words[-1] in _NOT_THE_SECRET:
        return False
    joined = any(word.endswith(("password", "passwd", "apikey", "secretkey")) for word in words)
    pairs = any(pair in _SECRET_PAIRS for pair in pairwise(words))
    return joined or pairs or bool(_SECRET_WORDS & set(words))


@dataclass(frozen=True, slots=True)
class PodContext:
    """What is known of a pod beside its spec. None: nobody knows."""

    namespace: str | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    has_network_policy: bool | None = None  # whether a NetworkPolicy of its namespace selects the pod
    pointer: str = "/spec"  # JSON pointer to the pod spec in its document: /spec/template/spec of a Deployment


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check says about one container, or about the pod as a whole."""

    check: str  # id of the check
    result: Result
    kind: Kind
    container: str  # name; "" for the pod
    pointer: str  # JSON pointer to what was looked at
    summary: str  # one sentence
    fix: str = ""  # what to do about it; "" for a pass
    profile: Profile | None = None  # the Pod Security Standard that this failure breaks
    mode: str = "observe"  # off, observe, warn, enforce

    @property
    def is_open(self) -> bool:
        """Return whether it lets a pod through by itself, whatever the mode."""
        return self.result in {Result.PASS, Result.NOT_APPLICABLE}

    @property
    def blocks(self) -> bool:
        return self.mode == "enforce" and not self.is_open

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "result": self.result.value,
            "kind": self.kind.value,
            "container": self.container,
            "pointer": self.pointer,
            "summary": self.summary,
            "fix": self.fix,
            "profile": self.profile.value if self.profile else None,
            "mode": self.mode,
        }


class UnreadableField(Malformed):
    """A field of a pod has another type than Kubernetes gives it."""

    def __init__(self, pointer: str, wanted: str) -> None:
        super().__init__(f"{pointer} must be {wanted}.")
        self.pointer = pointer


Fields = Mapping[str, Any]


def mapping(holder: Fields, key: str, at: str) -> Fields:
    """Return the object below `key`, empty when it is absent. Raises UnreadableField."""
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UnreadableField(f"{at}/{key}", "an object")
    return value


def entries(holder: Fields, key: str, at: str) -> list[Fields]:
    """Return the list of objects below `key`. Raises UnreadableField."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > LIST_MAX:
        raise UnreadableField(f"{at}/{key}", f"a list of at most {LIST_MAX} objects")
    for number, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise UnreadableField(f"{at}/{key}/{number}", "an object")
    return value


def flag(holder: Fields, key: str, at: str) -> bool | None:
    """Return the boolean below `key`; None when it is absent. Raises UnreadableField."""
    value = holder.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise UnreadableField(f"{at}/{key}", "true or false")


def number(holder: Fields, key: str, at: str) -> int | None:
    """Return the whole number below `key`; None when it is absent. Raises UnreadableField."""
    value = holder.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 0.0 is 0
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise UnreadableField(f"{at}/{key}", "a whole number")


def text(holder: Fields, key: str, at: str) -> str:
    """Return the text below `key`; "" when it is absent. Raises UnreadableField."""
    value = holder.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnreadableField(f"{at}/{key}", "a text")
    return value


def texts(holder: Fields, key: str, at: str) -> list[str]:
    """Return the list of texts below `key`. Raises UnreadableField."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > LIST_MAX or not all(isinstance(item, str) for item in value):
        raise UnreadableField(f"{at}/{key}", f"a list of at most {LIST_MAX} texts")
    return value


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod, with the configuration of its image when that is known."""

    kind: Kind
    name: str
    at: str  # JSON pointer
    fields: Fields
    security: Fields
    image: ImageConfig | None

    @property
    def security_at(self) -> str:
        return f"{self.at}/securityContext"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod spec, read once for all checks."""

    fields: Fields
    at: str
    security: Fields
    containers: tuple[Container, ...]
    context: PodContext

    @property
    def security_at(self) -> str:
        return f"{self.at}/securityContext"

    @property
    def is_windows(self) -> bool:
        return mapping(self.fields, "os", self.at).get("name") == "windows"

    @property
    def has_user_namespace(self) -> bool:
        return flag(self.fields, "hostUsers", self.at) is False


@dataclass(frozen=True, slots=True)
class Found:
    """What the function of a check says; `isolation.judge` makes a Verdict of it."""

    result: Result
    at: str
    summary: str
    container: Container | None = None  # None: the pod as a whole
    profile: Profile | None = None


def shown(names: Iterable[str]) -> str:
    """Return the first names, quoted by commas, and how many more there are."""
    listed = sorted(set(names))
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return ", ".join(name[:100] for name in listed[:NAMES_SHOWN]) + more
