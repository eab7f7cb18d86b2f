"""Scheduled work: waivers end by themselves."""

from __future__ import annotations

from lifecycle.jobs.schedule import every
from lifecycle.policies import waivers


@every(60, "waivers")
def end_waivers() -> None:
    """End waivers whose time is over or whose fix shipped, and record that others end soon."""
    waivers.end_waivers()
