"""Search by name, digest or number, over everything that a reader can see."""
