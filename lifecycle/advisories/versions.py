"""`lifecycle.advisories.versions.compare`, the address that scripts use; the schemes are in `lifecycle.versions`."""

from lifecycle.versions import compare

__all__ = ["compare"]
