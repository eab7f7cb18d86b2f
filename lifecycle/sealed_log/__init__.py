"""The sealed audit log: events in a Merkle tree with signed checkpoints, its files, and its proofs."""
