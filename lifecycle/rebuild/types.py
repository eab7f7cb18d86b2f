"""What a builder is asked for, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lifecycle.core.errors import LifecycleError


class BuildFailed(LifecycleError):
    """The recipe itself failed: building it again changes nothing. The end of its log says why."""

    code: ClassVar[str] = "build_failed"
    http_status: ClassVar[int] = 422


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One image to build and push into a repository of the managed registry."""

    containerfile: str
    context: Path | None  # a folder; None for a recipe without one
    build_args: Mapping[str, str]
    bases: Mapping[str, str]  # a reference as the recipe writes it -> "<repository>@sha256:..." in that registry
    repository: str
    tag: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What was pushed: the digest of the platform manifest, and how long it took."""

    digest: str
    seconds: float
