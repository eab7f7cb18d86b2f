"""`lifecycle.advisories.versions.compare`, the import path for scripts. The schemes are in `lifecycle.versions`."""

from lifecycle.versions import compare

__all__ = ["compare"]
