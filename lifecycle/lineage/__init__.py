"""Which image was built on which: derivations with their evidence, and their closure."""
