"""The request to a builder, its result, and the errors that end a build or the reading of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lifecycle.core.errors import LifecycleError


class BuildFailed(LifecycleError):
    """The recipe failed. A retry does not help. The end of the log shows the reason."""

    code: ClassVar[str] = "build_failed"
    http_status: ClassVar[int] = 422


class BuilderOff(LifecycleError):
    """The embedded builder is off for this repository. The message says who can turn it on."""

    code: ClassVar[str] = "builder_off"
    http_status: ClassVar[int] = 403


class NoBuildBox(LifecycleError):
    """This machine cannot give builds a box, so the embedded builder refuses. The message says what is missing."""

    code: ClassVar[str] = "no_build_box"
    http_status: ClassVar[int] = 503


class NoBuildSpace(LifecycleError):
    """SCRATCH has no space for the disk of a build, or for its result."""

    code: ClassVar[str] = "no_build_space"
    http_status: ClassVar[int] = 507


class PlanLimit(LifecycleError):
    """Reading the layers would take longer, or transfer more, than a plan allows. The image itself may be fine."""

    code: ClassVar[str] = "plan_limit"
    http_status: ClassVar[int] = 413


class WaveCancelled(LifecycleError):
    """The wave of this build was cancelled. Ends the build immediately; its job becomes `cancelled`, not `failed`."""

    code: ClassVar[str] = "cancelled"
    http_status: ClassVar[int] = 409


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One image to build and push into a repository of the managed registry."""

    containerfile: str
    context: Path | None  # a folder; None for a recipe without one
    build_args: Mapping[str, str]
    bases: Mapping[str, str]  # reference as in the recipe -> "<repository>@sha256:..." in that registry
    repository: str
    tag: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The digest of the pushed platform manifest, and the duration of the build."""

    digest: str
    seconds: float
