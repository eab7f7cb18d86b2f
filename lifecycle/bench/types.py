"""What a bench says: figures with their units and the targets they are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number; `target` is the bar where one was set, None elsewhere."""

    value: float
    unit: str  # "ms" and "s": less is better; everything in "/s": more is better
    target: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the figure as `--json` prints it; three digits say more than the noise allows."""
        return {"value": float(f"{self.value:.4g}"), "unit": self.unit, "target": self.target}

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.unit.endswith("/s") else self.value <= self.target


Figures = Mapping[str, Figure]
