"""Which image was built on which: derivations with their evidence, the closure of them, and their drawing."""
