"""The results of a bench: figures with their units and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; `target` is None for a figure without a target."""

    value: float
    unit: str  # for "ms" and "s", less is better; for units that end with "/s" and for "x", more is
    target: float | None = None
    before: float | None = None  # the same figure before the last work on speed, on another day

    def as_json(self) -> dict[str, Any]:
        """Return the figure for `--json`, rounded to four digits, because more digits are only noise."""
        report = {"value": float(f"{self.value:.4g}"), "unit": self.unit, "target": self.target}
        return report if self.before is None else report | {"before": self.before}

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.is_more_better else self.value <= self.target

    @property
    def is_more_better(self) -> bool:
        """Whether the target is the least value, as of rates, and not the greatest, as of times."""
        return self.unit.endswith("/s") or self.unit == "x"


Figures = Mapping[str, Figure]
