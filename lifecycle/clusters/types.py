"""What a caller wants to be bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BindingWish:
    """A namespace pattern and the environment for it: `staging` of the cluster's team, or `shop/staging`."""

    pattern: str
    environment: str
    mode: str = ""
    allowed_hosts: tuple[str, ...] = ()
