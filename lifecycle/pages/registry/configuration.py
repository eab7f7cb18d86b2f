"""The configuration of an image in words, for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lifecycle.registry.models import Image


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration of a platform manifest: what runs, with which settings."""

    settings: list[tuple[str, str]]  # name, value as a command line or text; "" when the image does not set it
    variables: list[tuple[str, str]]
    labels: list[tuple[str, str]]
    annotations: list[tuple[str, str]]
    is_known: bool


def configuration_of(image: Image) -> Configuration:
    """Return the configuration of `image`. Values of an unexpected type are shown as text, never dropped."""
    inner = image.config.get("config") if isinstance(image.config, Mapping) else None
    config: Mapping[str, Any] = inner if isinstance(inner, Mapping) else {}
    health = config.get("Healthcheck")
    settings = [
        ("Entrypoint", _command(config.get("Entrypoint"))),
        ("Command", _command(config.get("Cmd"))),
        ("User", _text(config.get("User"))),
        ("Working directory", _text(config.get("WorkingDir"))),
        ("Ports", _names(config.get("ExposedPorts"))),
        ("Volumes", _names(config.get("Volumes"))),
        ("Stop signal", _text(config.get("StopSignal"))),
        ("Health check", _command(health.get("Test")) if isinstance(health, Mapping) else _text(health)),
    ]
    variables = [str(item).partition("=") for item in _list(config.get("Env"))]
    labels = image.labels or config.get("Labels") or {}
    return Configuration(
        settings,
        sorted((name, value) for name, _, value in variables),
        sorted((str(name), _text(value)) for name, value in dict(labels).items()),
        sorted((str(name), _text(value)) for name, value in dict(image.annotations or {}).items()),
        bool(image.config),
    )


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _command(value: Any) -> str:
    """Return a command as its list of arguments, so that spaces inside an argument stay visible."""
    items = _list(value)
    return " ".join(f'"{item}"' if " " in str(item) or item == "" else str(item) for item in items)


def _names(value: Any) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, (Mapping, list)) else _text(value)
