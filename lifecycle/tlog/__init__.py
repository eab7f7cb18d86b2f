"""Transparency logs in public formats: Merkle tree, tiles, signed checkpoints and proofs, without model and network."""
